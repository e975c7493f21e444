"""ASE calculator: parameters, cache and errors around `phicalc.inference.evaluate.evaluate`."""

import os
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, SupportsFloat

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    InputError,
    PropertyNotImplementedError,
    ReadError,
    all_changes,
)

from phicalc.calculators.parameters import (
    ASE_ARGUMENTS,
    checked,
    given_or_last,
    load,
    record_of_model,
    refuse_undefined,
    refuse_unknown,
)
from phicalc.card import ModelCard
from phicalc.compiled import CompiledPredictor, Mode
from phicalc.electrostatics import CoulombSettings
from phicalc.graph import AtomicGraph
from phicalc.inference.batch import BATCH_ATOMS, evaluate_batch
from phicalc.inference.conditions import Environment, charge_concern, environment_of
from phicalc.inference.evaluate import Workspace, evaluate, prepare
from phicalc.potential import Potential
from phicalc.response import (
    born_effective_charges,
    electrode_potentials,
    electrostatic_potential,
    polarizability,
)
from phicalc.structures import same_structure


class PhiCalculator(Calculator):
    """Energies, forces, stress, charges and dipoles of a trained potential, for ASE.

    >>> from ase.build import molecule
    >>> atoms = molecule("H2O")
    >>> atoms.calc = PhiCalculator("water")  # doctest: +SKIP
    >>> atoms.get_potential_energy()  # doctest: +SKIP

    ============ ============ ==================================================================
    property     unit         defined for
    ============ ============ ==================================================================
    energy       eV           everything; ``free_energy`` is the same number
    energies     eV           everything; they sum to the energy
    forces       eV/Å         everything
    stress       eV/Å³        structures periodic in all three directions; (1/V) ∂E/∂ε, tension
                              positive, Voigt order xx, yy, zz, yz, xz, xy
    charges      e            models with charges
    dipole       e Å          models with charges, structures without periodic directions; of
                              charged ones about the centre of mass (standard atomic masses)
    ============ ============ ==================================================================

    Asking for anything else raises ASE's ``PropertyNotImplementedError``. Stress is computed once
    it has been asked for, and from then on with every periodic structure. The terms of the energy
    are in `energy_terms`, the description of the model in `card`.

    The total charge of a structure is `total_charge` if given, else ``atoms.info["charge"]``, else
    0; the electric field is `external_field`, else ``atoms.info["external_field"]``, else none. A
    change of these entries, in place too, is noticed like one of the positions. In a field the
    energy is the enthalpy ``E − μ·field``, and forces and stress are its derivatives.

    Instead of a total charge a structure can have an `electrode_potential` V: its charge Q comes
    from a reservoir at V, and the energy is ``E − V·Q``. Parts of it can have charges or potentials
    of their own: ``atoms.arrays["fragments"]`` numbers them from 0, and each has a charge in
    ``atoms.info["fragment_charges"]`` (e) or a potential in ``atoms.info["fragment_potentials"]``
    (V), with NaN in the other. If the total charge is given as well, fragments with potentials
    share what the others leave of it, so that only differences of potentials count (two electrodes
    of a neutral cell).

    Electrostatic sums remember their parameters from step to step, and charges of large structures
    are iterated from the last ones; neither changes a result by more than `force_accuracy`.

    Parameters
    ----------
    model
        Name of a registered model, a model folder (see `phicalc.checkpoint.load_model`), or a
        `Potential` in memory, of which a copy is taken.
    device
        "cpu", "cuda", ..., or "auto": CUDA where available.
    dtype
        Precision of the network, "float32" or "float64". Positions, sums of energies and
        electrostatics are float64 either way.
    total_charge
        Net charge in e of every structure; overrides ``atoms.info["charge"]``.
    neighbors
        Neighbour engine: "auto" or one of `phicalc.neighbors.ENGINES`.
    force_accuracy
        Largest root mean square error of the electrostatic sums in the forces, in eV/Å; by default
        that of the model.
    external_field
        Uniform electric field in V/Å, three numbers, without component along periodic axes;
        overrides ``atoms.info["external_field"]``.
    electrode_potential
        Potential in V of a reservoir of charge, for models with charge equilibration; overrides
        ``atoms.info["electrode_potential"]``.
    compile
        Use compiled functions (`phicalc.compiled`): True compiles them where they are missing,
        which takes a minute or two once per model and machine; "auto" only takes what is there. On
        the CPU only.
    **kwargs
        ``atoms``, ``directory`` and ``label`` as for every ASE calculator.

    Raises
    ------
    FileNotFoundError, ValueError
        If the model cannot be loaded.
    ase.calculators.calculator.InputError
        For an unknown parameter or an impossible value.
    """

    # Of the class, as ASE wants it; every instance owns a list without what its model lacks.
    implemented_properties: list[str] = [
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "charges",
        "dipole",
    ]
    default_parameters: dict[str, Any] = {
        "model": "water",
        "device": "auto",
        "dtype": "float32",
        "total_charge": None,
        "neighbors": "auto",
        "force_accuracy": None,
        "external_field": None,
        "electrode_potential": None,
        "compile": "auto",
    }
    discard_results_on_any_change = True
    # Nothing of the model depends on these arrays of Atoms.
    ignored_changes: set[str] = {"initial_magmoms", "initial_charges"}

    def __init__(
        self,
        model: str | os.PathLike[str] | Potential = "water",
        *,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        total_charge: SupportsFloat | None = None,
        neighbors: str = "auto",
        force_accuracy: SupportsFloat | None = None,
        external_field: Sequence[SupportsFloat] | np.ndarray | None = None,
        electrode_potential: SupportsFloat | None = None,
        compile: Mode = "auto",
        **kwargs: Any,
    ) -> None:
        refuse_unknown(kwargs, ASE_ARGUMENTS, self.default_parameters)
        self._source: str | os.PathLike[str] | Potential = model
        self._potential: Potential | None = None
        self._card: ModelCard | None = None
        self._predictor: CompiledPredictor | None = None
        self._charges_warned: set[float] = set()
        atoms = kwargs.pop("atoms", None)
        super().__init__(**kwargs)
        self.reset()
        self.set(
            model=model,
            device=device,
            dtype=dtype,
            total_charge=total_charge,
            neighbors=neighbors,
            force_accuracy=force_accuracy,
            external_field=external_field,
            electrode_potential=electrode_potential,
            compile=compile,
        )
        if atoms is not None:
            atoms.calc = self

    @property
    def potential(self) -> Potential:
        """The potential as this calculator uses it (its own copy)."""
        assert self._potential is not None  # loaded by the constructor
        return self._potential

    @property
    def card(self) -> ModelCard | None:
        """Description of the model; None for a potential that was given in memory."""
        return self._card

    @property
    def energy_terms(self) -> dict[str, float]:
        """Terms of the last energy by name, in eV; empty before the first calculation."""
        return dict(self._energy_terms)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters and drop all results; returns the parameters that changed.

        If this raises, the calculator is as it was. Errors are those of the constructor.
        """
        if not kwargs:
            return {}
        refuse_unknown(kwargs, self.default_parameters, self.default_parameters)
        source = self._source
        if "model" in kwargs:
            source = kwargs["model"]
            kwargs["model"] = record_of_model(source)
        wanted = checked({**self.parameters, **kwargs})
        loaded = ("device", "dtype", "compile")
        placement = {key for key in loaded if wanted[key] != self.parameters[key]}
        if "model" in kwargs or placement:
            # A potential in memory may be trained further by its owner; what was given stays.
            self._potential, self._card = load(source, wanted["device"], wanted["dtype"])
            self._source = deepcopy(source) if isinstance(source, Potential) else source
            self._predictor = CompiledPredictor(self._potential, wanted["compile"])
            self._charges_warned.clear()
            self.implemented_properties = [
                name
                for name in type(self).implemented_properties
                if name not in ("charges", "dipole") or self._potential.head.has_charges
            ]
            self.reset()
        return super().set(**wanted)

    def reset(self) -> None:
        """Forget the last structure and everything computed for it."""
        super().reset()
        self._energy_terms: dict[str, float] = {}
        self._environment_used: Environment | None = None
        self._stress_wanted = False
        self._workspace: Workspace | None = None

    def read(self, label: str) -> None:
        """Refuse ``restart=``: there is nothing to restart from."""
        raise ReadError(f"PhiCalculator writes no restart files: leave out restart={label!r}")

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation, total charge and field included."""
        changes = [] if same_structure(self.atoms, atoms) else list(super().check_state(atoms, tol))
        try:
            environment = environment_of(atoms, self.parameters)
        except InputError:  # this is no place to complain; `calculate` will
            environment = None
        used = self._environment_used
        if environment is None or used is None:
            return [*changes, *Environment._fields]
        pairs = zip(Environment._fields, environment, used, strict=True)
        return changes + [name for name, now, before in pairs if now != before]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute the results for a structure (ASE calls this; use ``atoms.get_...``).

        Raises
        ------
        ase.calculators.calculator.CalculatorSetupError
            If the model does not know an element or cannot treat the boundary conditions.
        ase.calculators.calculator.InputError
            For positions, cells or charges that make no sense.
        ase.calculators.calculator.PropertyNotImplementedError
            For a property that is not defined for this structure.
        ase.calculators.calculator.CalculationFailed
            If the results are not finite, or memory ran out.
        """
        atoms = given_or_last(atoms, self.atoms)
        wanted = ["energy"] if properties is None else list(properties)
        refuse_undefined(wanted, atoms)
        super().calculate(atoms, wanted, system_changes)
        self.results, self._energy_terms = {}, {}  # nothing old may survive a failure below
        self._environment_used = None
        environment = environment_of(atoms, self.parameters)
        self._stress_wanted |= "stress" in wanted
        evaluation = evaluate(
            self.potential,
            atoms,
            environment,
            stress=self._stress_wanted and bool(atoms.pbc.all()),
            workspace=self._kept(),
        )
        self._warn_about_charge(environment.total_charge)
        self._environment_used = environment
        self._energy_terms = evaluation.energy_terms
        self.results = evaluation.results

    def batch(
        self, structures: Sequence[Atoms], *, stress: bool = False, max_atoms: int = BATCH_ATOMS
    ) -> list[dict[str, Any]]:
        """Compute the results of many structures at once.

        The numbers are those that each structure has alone, to rounding.

        Parameters
        ----------
        structures
            Structures of any kind, mixed at will; they are left alone.
        stress
            Compute the stress of those that are periodic in three directions.
        max_atoms
            Atoms that are treated together, which bounds the memory; larger structures go alone.

        Returns
        -------
        results
            For each structure what `results` would hold: energy, forces, and so on.

        Raises
        ------
        ase.calculators.calculator.CalculatorError
            As `calculate`.
        """
        environments = [environment_of(atoms, self.parameters) for atoms in structures]
        evaluations = evaluate_batch(
            self.potential,
            structures,
            environments,
            stress=stress,
            max_atoms=max_atoms,
            make_workspace=self._make_workspace,
        )
        for environment in environments:
            self._warn_about_charge(environment.total_charge)
        return [evaluation.results for evaluation in evaluations]

    def get_born_effective_charges(self, atoms: Atoms | None = None) -> np.ndarray:
        """Born effective charges ``∂μ_α/∂r_iβ`` in e, shape (n_atoms, 3, 3).

        See `phicalc.response.born_effective_charges`; errors are those of `calculate`.
        """
        return born_effective_charges(self.potential, self._prepare(atoms)).cpu().numpy()

    def get_electrode_potentials(self, atoms: Atoms | None = None) -> np.ndarray:
        """Potential in V of the reservoir each atom is in equilibrium with, shape (n_atoms,).

        See `phicalc.response.electrode_potentials`; errors are those of `calculate`.
        """
        return electrode_potentials(self.potential, self._prepare(atoms)).cpu().numpy()

    def get_polarizability(self, atoms: Atoms | None = None) -> np.ndarray:
        """Polarizability ``∂μ_α/∂E_β`` in e Å²/V, shape (3, 3), without periodic axes only.

        See `phicalc.response.polarizability`; errors are those of `calculate`.
        """
        return polarizability(self.potential, self._prepare(atoms)).cpu().numpy()

    def get_electrostatic_potential(self, atoms: Atoms | None = None) -> np.ndarray:
        """Electrostatic potential at each atom in V, the own charge included; shape (n_atoms,)."""
        return electrostatic_potential(self.potential, self._prepare(atoms)).cpu().numpy()

    def _prepare(self, atoms: Atoms | None) -> AtomicGraph:
        """Graph of a structure for a property of the charges."""
        atoms = given_or_last(atoms, self.atoms)
        if not self.potential.head.has_charges:
            raise PropertyNotImplementedError("this model has no charges")
        environment = environment_of(atoms, self.parameters)
        return prepare(self.potential, atoms, environment, self._kept())

    def _kept(self) -> Workspace:
        """Return what is kept from structure to structure, until a parameter changes."""
        if self._workspace is None:
            self._workspace = self._make_workspace()
        return self._workspace

    def _make_workspace(self) -> Workspace:
        """Make a workspace as the parameters say."""
        accuracy = self.parameters["force_accuracy"]
        return Workspace(
            self.potential,
            neighbors=self.parameters["neighbors"],
            settings=None if accuracy is None else CoulombSettings(accuracy),
            predictor=self._predictor,
        )

    def _get_name(self) -> str:
        """Name under which trajectories and databases record this calculator."""
        return "phicalc"

    def _warn_about_charge(self, charge: float) -> None:
        """Warn once for each total charge that the model has no experience with."""
        if charge in self._charges_warned:
            return
        reason = charge_concern(self.potential, self.card, charge)
        if reason:
            self._charges_warned.add(charge)
            warnings.warn(f"total charge {charge:g} e: {reason}", UserWarning, stacklevel=2)
