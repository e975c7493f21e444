"""ASE calculator: parameters, cache and errors around `phicalc.inference.evaluate.evaluate`."""

from collections.abc import Sequence
from functools import partial
from typing import Any, SupportsFloat

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError, all_changes
from jaxtyping import Shaped

from phicalc.calculators.loading import LoadedModel, Source, load, record_of_model
from phicalc.calculators.locking import locked
from phicalc.calculators.parameters import ASE_ARGUMENTS, checked, refuse_unknown
from phicalc.calculators.requests import given_or_last, refuse_undefined
from phicalc.calculators.response import ResponsiveCalculator
from phicalc.calculators.uncertain import UncertainCalculator, why_certain, with_flags
from phicalc.card import ModelCard
from phicalc.compiled import Mode
from phicalc.graph import AtomicGraph, Conditions
from phicalc.inference.batch import BATCH_ATOMS, evaluate_batch
from phicalc.inference.concerns import Voice
from phicalc.inference.conditions import conditions_of
from phicalc.inference.evaluate import evaluate, prepare
from phicalc.inference.workspace import Workspace
from phicalc.potential import Potential
from phicalc.structures import same_structure


class PhiCalculator(UncertainCalculator, ResponsiveCalculator):
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
    energy is the enthalpy ``E − μ·field``, and forces and stress are its derivatives; models with
    charge feedback are refused, because their charges do not minimize it.

    Instead of a total charge a structure can have an `electrode_potential` V: its charge Q comes
    from a reservoir at V, and minimizes the energy ``E − V·Q``. Fragments can have their own
    charges or potentials: ``atoms.arrays["fragments"]`` numbers them from 0, and each has a charge
    in ``atoms.info["fragment_charges"]`` (e) or a potential in
    ``atoms.info["fragment_potentials"]`` (V), with NaN in the other. If the total charge is given
    as well, fragments with potentials share what the others leave of it, so that only differences
    of potentials count (two electrodes of a neutral cell). The zero of V is that of ∂E/∂Q in the
    training data: electrons at rest far away if these have several total charges, else arbitrary.

    Structures outside of what the model was made for give a `DomainWarning`, once for each kind:
    atoms that are too close, radicals, total charges, crystals or stress that the card of the model
    excludes, far fragments with fractions of a charge, forces and charges that do not occur. A
    potential in memory has no card, so only distances are looked at. Results beyond physical limits
    (10⁴ eV/Å, 10 e, 10⁴ eV per atom) raise an error.

    Electrostatic sums remember their parameters from step to step, and charges of large structures
    are iterated from the last ones; neither changes a result by more than `force_accuracy`. Threads
    that share a calculator wait for each other.

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
        Neighbor engine: "auto" or one of `phicalc.neighbors.ENGINES`.
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
        which takes a minute or two once per model and machine; "background" compiles in another
        process and goes on uncompiled meanwhile, so that runs cannot be repeated bit for bit;
        "auto" only takes what is there. On GPUs True records whole steps (`phicalc.captured`), and
        the others do nothing.
    strict
        Raise an error where a `DomainWarning` would come.
    uncertainty
        Compute standard deviations with all results if the model has an uncertainty
        (`get_uncertainty`), and warn of atoms unlike the training data: a few per cent of a step.
    **kwargs
        ``atoms``, ``directory`` and ``label`` as for every ASE calculator.

    Raises
    ------
    FileNotFoundError, ValueError
        If the model cannot be loaded.
    ase.calculators.calculator.InputError
        For an unknown parameter or an impossible value.
    """

    # Of the class, as ASE wants it; every instance has its own list without what its model lacks.
    implemented_properties: list[str] = [
        "energy", "free_energy", "energies", "forces", "stress", "charges", "dipole",
    ]  # fmt: skip
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
        "strict": False,
        "uncertainty": True,
    }
    discard_results_on_any_change = True
    # Nothing of the model depends on these arrays of Atoms.
    ignored_changes: set[str] = {"initial_magmoms", "initial_charges"}

    def __init__(
        self,
        model: Source = "water",
        *,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        total_charge: SupportsFloat | None = None,
        neighbors: str = "auto",
        force_accuracy: SupportsFloat | None = None,
        external_field: Sequence[SupportsFloat] | Shaped[np.ndarray, "..."] | None = None,
        electrode_potential: SupportsFloat | None = None,
        compile: Mode = "auto",
        strict: bool = False,
        uncertainty: bool = True,
        **kwargs: Any,
    ) -> None:
        refuse_unknown(kwargs, ASE_ARGUMENTS, self.default_parameters)
        self._model: LoadedModel | None = None
        self.voice = Voice()
        atoms = kwargs.pop("atoms", None)
        super().__init__(**kwargs)
        self.reset()
        self.set(
            model=model, device=device, dtype=dtype, total_charge=total_charge,
            neighbors=neighbors, force_accuracy=force_accuracy, external_field=external_field,
            electrode_potential=electrode_potential, compile=compile, strict=strict,
            uncertainty=uncertainty,
        )  # fmt: skip
        if atoms is not None:
            atoms.calc = self

    @property
    def model(self) -> LoadedModel:
        """The model as this calculator uses it."""
        assert self._model is not None  # loaded by the constructor
        return self._model

    @property
    def potential(self) -> Potential:
        """The potential of the model; no other calculator uses this copy."""
        return self.model.potential

    @property
    def card(self) -> ModelCard | None:
        """Description of the model; None for a potential that was given in memory."""
        return self.model.card

    @property
    def why_certain(self) -> str:
        """Why there is no uncertainty, and what gives one; empty if there is one."""
        return why_certain(self.potential, self.parameters["uncertainty"])

    @property
    def energy_terms(self) -> dict[str, float]:
        """Terms of the last energy by name, in eV; empty before the first calculation."""
        return dict(self._energy_terms)

    @locked
    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters and drop all results; returns the parameters that changed.

        If this raises, the calculator is as it was. Errors are those of the constructor.
        """
        if not kwargs:
            return {}
        refuse_unknown(kwargs, self.default_parameters, self.default_parameters)
        if "model" in kwargs:
            source: Source = kwargs["model"]
            kwargs["model"] = record_of_model(source)
        else:
            source = self.model.source
        wanted = checked({**self.parameters, **kwargs})
        loaded = ("device", "dtype", "compile")
        if "model" in kwargs or any(wanted[key] != self.parameters[key] for key in loaded):
            self._model = load(source, wanted)
            self.implemented_properties = self._model.properties(type(self).implemented_properties)
            self.voice.forget()
            self.reset()
        self.voice.strict = wanted["strict"]
        return super().set(**wanted)

    @locked
    def reset(self) -> None:
        """Forget the last structure and everything computed for it."""
        super().reset()
        self._energy_terms: dict[str, float] = {}
        self._uncertainty = None
        self._conditions_used: Conditions | None = None
        self._stress_wanted = False
        self._workspace: Workspace | None = None

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation, total charge and field included."""
        changes = []
        if not same_structure(self.atoms, atoms):
            # ASE cannot compare arrays of text, say: `calculate` will refuse them.
            real = atoms.positions.dtype.kind in "fiu"
            changes = list(super().check_state(atoms, tol)) if real else ["positions"]
        try:
            conditions = conditions_of(atoms, self.parameters)
        except InputError:  # this is no place to complain; `calculate` will
            conditions = None
        used = self._conditions_used
        if conditions is None or used is None:
            return [*changes, *Conditions._fields]
        pairs = zip(Conditions._fields, conditions, used, strict=True)
        return changes + [name for name, now, before in pairs if now != before]

    @locked
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
            For positions, cells, charges or fields that make no sense; with ``strict``, for
            structures outside of what the model was made for.
        ase.calculators.calculator.PropertyNotImplementedError
            For a property that is not defined for this structure.
        ase.calculators.calculator.CalculationFailed
            If the results are not finite or beyond physical limits, or memory ran out.
        """
        atoms = given_or_last(atoms, self.atoms)
        wanted = ["energy"] if properties is None else list(properties)
        refuse_undefined(wanted, atoms)
        super().calculate(atoms, wanted, system_changes)
        self.results, self._energy_terms = {}, {}  # nothing old may survive a failure below
        self._conditions_used = self._uncertainty = None
        conditions = conditions_of(atoms, self.parameters, self.potential)
        self._stress_wanted |= "stress" in wanted
        stress = self._stress_wanted and bool(atoms.pbc.all())
        evaluation = evaluate(
            self.potential, atoms, conditions, stress=stress, workspace=self._kept()
        )
        self.voice(evaluation.concerns)
        self._conditions_used = conditions
        self._energy_terms = evaluation.energy_terms
        self._uncertainty = evaluation.uncertainty
        self.results = evaluation.results

    @locked
    def batch(
        self, structures: Sequence[Atoms], *, stress: bool = False, max_atoms: int = BATCH_ATOMS
    ) -> list[dict[str, Any]]:
        """Compute the results of many structures at once.

        The numbers are those that each structure has alone, to rounding.

        Parameters
        ----------
        structures, stress, max_atoms
            As of `phicalc.inference.batch.evaluate_batch`; the structures are left alone.

        Returns
        -------
        results
            For each structure what `results` would hold: energy, forces, and so on; of models with
            an uncertainty `deviations` as well, and ``outside``: which atoms are.

        Raises
        ------
        ase.calculators.calculator.CalculatorError
            As `calculate`.
        """
        conditions = [conditions_of(atoms, self.parameters, self.potential) for atoms in structures]
        make = partial(self.model.workspace, self.parameters)
        evaluations = evaluate_batch(
            self.potential,
            structures,
            conditions,
            stress=stress,
            max_atoms=max_atoms,
            make_workspace=make,
        )
        for evaluation in evaluations:
            self.voice(evaluation.concerns)
        return [one.results | with_flags(one.uncertainty) for one in evaluations]

    def _prepared_graph(self, atoms: Atoms | None) -> AtomicGraph:
        """Return the graph of a structure for a property of the charges."""
        atoms = given_or_last(atoms, self.atoms)
        if not self.potential.head.has_charges:
            raise PropertyNotImplementedError("this model has no charges")
        conditions = conditions_of(atoms, self.parameters, self.potential)
        prepared = prepare(self.potential, atoms, conditions, self._kept())
        self.voice(prepared.concerns)
        return prepared.graph.to(self.potential.device)

    def _kept(self) -> Workspace:
        """Return what is kept from structure to structure, until a parameter changes."""
        if self._workspace is None:
            self._workspace = self.model.workspace(self.parameters)
        return self._workspace

    def _get_name(self) -> str:
        """Name under which trajectories and databases record this calculator."""
        return "phicalc"
