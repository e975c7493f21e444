"""Exact restarts: what a checkpoint holds, and how a run gets it back.

A checkpoint holds positions, momenta, cell, every variable of the integrator, numbers of the
constraints, the state of the random numbers, and the lengths of log and trajectory. A calculator
carries caches from step to step (neighbour lists with a skin, parameters of the Coulomb sums,
charges to start iterations from), which change the last bits of its results. They are not saved:
at each checkpoint the calculator is reset, whether the run is interrupted or not. That costs one
evaluation per checkpoint, works with every calculator of ASE, and leaves no list of things to save
that could be incomplete.
"""

import hashlib
import json
import platform
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator
from ase.calculators.mixing import LinearCombinationCalculator
from ase.io.jsonio import encode
from jaxtyping import Float, Float64, Shaped

from phicalc._version import __version__
from phicalc.calculators.committee import CommitteeCalculator
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.inference.conditions import conditions_of
from phicalc.md.config import MDConfig
from phicalc.md.constraints import describe_constraints, restore_constraints
from phicalc.md.ensembles.kind import Integrator
from phicalc.schema import differences, flatten
from phicalc.state import State, read_state, write_state

#: Arrays of the atoms in a checkpoint.
_MOTION = ("positions", "momenta", "cell")
#: Groups of arrays in a checkpoint, by the first part of their names.
_GROUPS = ("integrator", "constraints")
#: Settings in which a continued run may differ: they change rounding only …
_ROUNDING = ("calculator.device", "calculator.compile")
#: … or nothing.
_FREE = (*_ROUNDING, "calculator.model", "max_force", "max_temperature", "committee_threshold",
         "velocities")  # fmt: skip


class Checkpoint(NamedTuple):
    """The state of a run at one step."""

    step: int
    motion: dict[str, Float64[np.ndarray, "_ 3"]]
    """Positions (Å), momenta (ASE's units) and cell (Å)."""
    integrator: dict[str, Shaped[np.ndarray, "..."]]
    """Of `Integrator.state`."""
    random_state: dict[str, Any]
    """Of the bit generator of the noise."""
    degrees_of_freedom: int
    settings: dict[str, Any]
    """Configuration, calculator and structure (see `describe_run`)."""
    log_position: int
    """Size of the log in bytes."""
    trajectory_position: int
    """Size of the trajectory: bytes or frames (see `phicalc.md.output`)."""
    wall_time: float
    """Seconds that the run has taken so far."""
    constraints: dict[str, Float[np.ndarray, "..."]] = {}
    """Of `phicalc.md.constraints.constraint_state`."""
    start: str = ""
    """Digest of the structure that the run started from (see `digest_of`)."""
    surroundings: dict[str, Any] = {}
    """Of `surroundings`."""

    def save(self, path: Path, folder: int | None = None) -> None:
        """Replace the checkpoint of the run atomically.

        Parameters
        ----------
        path
            The file.
        folder
            Descriptor of its folder (see `phicalc.state.write_state`).

        Raises
        ------
        OSError
            When the disk is full; the old checkpoint stays.
        """
        document = self._asdict()
        arrays = document.pop("motion")
        for group in _GROUPS:
            arrays |= {f"{group}.{key}": value for key, value in document.pop(group).items()}
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
        write_state(path, State(tensors, document), folder)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Return the checkpoint in a file, or the one before, with a warning, if it is damaged.

        Raises
        ------
        ValueError
            When both are damaged, or of another version.
        """
        tensors, document = read_state(path, advice="start the run anew with overwrite")
        arrays = {key: value.numpy() for key, value in tensors.items()}
        motion = {key: arrays.pop(key) for key in _MOTION if key in arrays}
        groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
        for key, value in arrays.items():
            group, _, name = key.partition(".")
            groups.get(group, {})[name] = value
        try:
            return cls(
                motion=motion,
                integrator=groups["integrator"],
                constraints=groups["constraints"],
                **document,
            )
        except TypeError as error:
            raise ValueError(f"{path} is no checkpoint of dynamics ({error})") from error

    def put_atoms(self, atoms: Atoms) -> None:
        """Give the atoms the saved positions, momenta and cell."""
        atoms.set_cell(self.motion["cell"])
        atoms.positions[:] = self.motion["positions"]
        atoms.set_momenta(self.motion["momenta"], apply_constraint=False)
        restore_constraints(atoms, self.constraints)

    def check_same(self, settings: Mapping[str, Any], where: Path) -> None:
        """Refuse to continue the saved run with other settings; more steps are welcome.

        Raises
        ------
        ValueError
            Naming what differs.
        """
        ramp = any(settings[f"{name}_end"] is not None for name in ("temperature", "pressure"))
        free = _FREE if ramp else (*_FREE, "steps")  # the slope of a ramp depends on the steps
        found = differences(self._settings(), settings, skip=free)
        if settings["steps"] < self.step and not found:
            found = [f"steps: {settings['steps']}, but the run has done {self.step}"]
        if found:
            raise ValueError(
                f"{where} holds a run with other settings ({'; '.join(found)}): give the same to "
                "continue it, or choose another output folder"
            )

    def warn_of_changes(self, atoms: Atoms, settings: Mapping[str, Any], where: Path) -> None:
        """Warn if the run continues with other bits, or ignores the structure it is given.

        Parameters
        ----------
        atoms
            The structure, before `put_atoms`.
        settings
            Of `describe_run`.
        where
            The folder, for messages.
        """
        before, now = flatten(self._settings()), flatten(settings)
        old = {name: before.get(name) for name in _ROUNDING} | self.surroundings
        new = {name: now.get(name) for name in _ROUNDING} | (
            surroundings() if self.surroundings else {}
        )
        if found := differences(old, new):
            warnings.warn(
                f"{where}: the run was started under other conditions ({'; '.join(found)}): it "
                "continues, but agrees with an uninterrupted run to rounding only",
                stacklevel=4,
            )
        same = self.start in ("", digest_of(atoms)) or np.allclose(
            atoms.positions, self.motion["positions"], atol=1e-6
        )
        if not same:
            warnings.warn(
                f"{where}: the structure given is not the one that the run started from; it is "
                f"ignored, and the run continues from its checkpoint at step {self.step}",
                stacklevel=4,
            )

    def _settings(self) -> dict[str, Any]:
        """Return the saved settings; those that did not exist then have their defaults."""
        return {**MDConfig().to_dict(), **self.settings}


def take_motion(atoms: Atoms) -> dict[str, Float64[np.ndarray, "_ 3"]]:
    """Return copies of positions (Å), momenta (ASE's units) and cell (Å)."""
    return {
        "positions": atoms.get_positions(),
        "momenta": atoms.get_momenta(),
        "cell": atoms.cell.array.copy(),
    }


def digest_of(atoms: Atoms) -> str:
    """Return a digest of positions and cell."""
    numbers = np.concatenate([atoms.positions, atoms.cell.array]).astype("<f8")
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def surroundings() -> dict[str, Any]:
    """Return what changes the last bits of results: versions, threads, kind of processor."""
    return {
        "phicalc": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "ase": ase.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
    }


def start_afresh(atoms: Atoms, integrator: Integrator | None, pressure: bool) -> None:
    """Reset the calculator and compute the current structure again (see the module).

    Every process that continues from here computes the same.
    """
    for calculator in with_parts(atoms.calc):
        if isinstance(calculator, Calculator):
            calculator.reset()
        else:  # ASE's base class keeps nothing else
            calculator.atoms, calculator.results = None, {}
    if pressure:
        atoms.get_stress()  # first: the same evaluation gives energy and forces
    atoms.get_forces()
    if integrator is not None:
        integrator.refresh()


def with_parts(calculator: BaseCalculator) -> Iterator[BaseCalculator]:
    """Yield a calculator and, of sums of several, all parts."""
    if isinstance(calculator, LinearCombinationCalculator):
        for part in calculator.mixer.calcs:
            yield from with_parts(part)
    yield calculator


def describe_run(atoms: Atoms, config: MDConfig) -> dict[str, Any]:
    """Describe a run completely: two runs with the same description are the same run."""
    return {
        **config.to_dict(),
        "calculator": describe_calculator(atoms),
        "structure": _describe_structure(atoms),
    }


def describe_calculator(atoms: Atoms) -> dict[str, Any]:
    """Name, parameters and, of our own, the digest of the weights; of a committee, of each."""
    calculator = atoms.calc
    members = _members(calculator)
    if not members:
        return {"name": type(calculator).__name__, "parameters": _parameters(calculator)}
    models = [member.parameters["model"] for member in members]
    digests = [
        member.card.sha256 if member.card else model
        for member, model in zip(members, models, strict=True)
    ]
    # With warnings, errors or error bars, the numbers are the same.
    extras = ("strict", "uncertainty")
    shared = {key: value for key, value in members[0].parameters.items() if key not in extras}
    if isinstance(calculator, CommitteeCalculator):
        return {"name": "phicalc-committee", **shared, "model": models, "sha256": digests}
    return {"name": "phicalc", **shared, "sha256": digests[0]}


def _parameters(calculator: BaseCalculator) -> dict[str, Any]:
    """Return the parameters of a calculator of another package; of objects, the class."""
    found = {}
    for name, value in calculator.todict().items():
        try:
            found[name] = json.loads(encode(value))
        except (TypeError, ValueError):
            found[name] = f"{type(value).__module__}.{type(value).__qualname__}"
    return found


def _members(calculator: BaseCalculator) -> list[PhiCalculator]:
    """Return our calculators that make up one; none if it is of another kind."""
    if isinstance(calculator, CommitteeCalculator):
        return calculator.members
    return [calculator] if isinstance(calculator, PhiCalculator) else []


def _describe_structure(atoms: Atoms) -> dict[str, Any]:
    """Describe what stays the same: elements, masses, boundary conditions, constraints."""
    masses = np.ascontiguousarray(atoms.get_masses())
    digest = hashlib.sha256(atoms.numbers.astype("<i8").tobytes() + masses.tobytes())
    return {
        "formula": atoms.get_chemical_formula(),
        "elements and masses": digest.hexdigest()[:16],
        "pbc": atoms.pbc.tolist(),
        "constraints": describe_constraints(atoms),
        "environment": _environment(atoms),
    }


def _environment(atoms: Atoms) -> str | None:
    """Describe total charge, field and fragments, for a calculator that knows of them."""
    members = _members(atoms.calc)
    if not members:
        return None
    conditions = repr(conditions_of(atoms, members[0].parameters))
    # The names of earlier versions: their runs can be continued.
    return conditions.replace("FragmentConditions(", "ChargeGroups(").replace(
        "Conditions(", "Environment("
    )
