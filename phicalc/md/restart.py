"""Exact restarts: what a checkpoint holds, and how a run gets it back.

A checkpoint holds positions, momenta, cell, every variable of the integrator, the state of the
random numbers, and how long log and trajectory were. What a calculator carries from step to step
(neighbour lists with a skin, parameters of the Coulomb sums, charges to start iterations from)
changes the last bits of its results, and is not saved: at each checkpoint the calculator is made to
forget it, whether the run is interrupted or not. That costs one evaluation per checkpoint, works
with every calculator of ASE, and leaves no list of things to save that could be incomplete.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator
from ase.calculators.mixing import LinearCombinationCalculator
from ase.io.jsonio import encode

from phicalc.calculators.committee import CommitteeCalculator
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.inference.conditions import environment_of
from phicalc.md.config import MDConfig
from phicalc.md.ensembles import Integrator
from phicalc.schema import differences
from phicalc.state import State, read_state, write_state

#: Arrays of the atoms in a checkpoint.
_MOTION = ("positions", "momenta", "cell")
_PREFIX = "integrator."
#: Settings in which a continued run may differ: they change rounding at most, or nothing.
_FREE = ("calculator.model", "calculator.device", "calculator.compile", "max_force",
         "max_temperature", "committee_threshold")  # fmt: skip


class Checkpoint(NamedTuple):
    """The state of a run at one step."""

    step: int
    motion: dict[str, np.ndarray]
    """Positions (Å), momenta (ASE's units) and cell (Å)."""
    integrator: dict[str, np.ndarray]
    """Of `Integrator.state`."""
    random_state: dict[str, Any]
    """Of the bit generator of the noise."""
    degrees_of_freedom: int
    settings: dict[str, Any]
    """What ran: configuration, calculator, structure (see `describe_run`)."""
    log_position: int
    trajectory_position: int
    wall_time: float
    """Seconds that the run has taken so far."""

    def save(self, path: Path) -> None:
        """Replace the checkpoint of the run at a single instant.

        Raises
        ------
        OSError
            When the disk is full; the old checkpoint stays.
        """
        arrays = {**self.motion, **{_PREFIX + k: v for k, v in self.integrator.items()}}
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
        document = {
            name: value
            for name, value in self._asdict().items()
            if name not in ("motion", "integrator")
        }
        write_state(path, State(tensors, document))

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint.

        Raises
        ------
        ValueError
            When it is damaged or of another version.
        """
        tensors, document = read_state(path, advice="start the run anew with overwrite")
        arrays = {key: value.numpy() for key, value in tensors.items()}
        motion = {key: arrays.pop(key) for key in _MOTION if key in arrays}
        integrator = {key.removeprefix(_PREFIX): value for key, value in arrays.items()}
        try:
            return cls(motion=motion, integrator=integrator, **document)
        except TypeError as error:
            raise ValueError(f"{path} is no checkpoint of dynamics ({error})") from error

    def put_atoms(self, atoms: Atoms) -> None:
        """Give the atoms the saved positions, momenta and cell."""
        atoms.set_cell(self.motion["cell"])
        atoms.positions[:] = self.motion["positions"]
        atoms.set_momenta(self.motion["momenta"], apply_constraint=False)

    def check_same(self, settings: Mapping[str, Any], where: Path) -> None:
        """Refuse to go on with another run than the saved one; more steps are welcome.

        Raises
        ------
        ValueError
            Naming what differs.
        """
        ramp = any(settings[f"{name}_end"] is not None for name in ("temperature", "pressure"))
        free = _FREE if ramp else (*_FREE, "steps")  # the slope of a ramp depends on the steps
        found = differences(self.settings, settings, skip=free)
        if settings["steps"] < self.step and not found:
            found = [f"steps: {settings['steps']}, but the run has done {self.step}"]
        if found:
            raise ValueError(
                f"{where} holds a run with other settings ({'; '.join(found)}): give the same to "
                "continue it, or choose another output folder"
            )


def take_motion(atoms: Atoms) -> dict[str, np.ndarray]:
    """Copy positions, momenta and cell."""
    return {
        "positions": atoms.get_positions(),
        "momenta": atoms.get_momenta(),
        "cell": atoms.cell.array.copy(),
    }


def start_afresh(atoms: Atoms, integrator: Integrator | None, pressure: bool) -> None:
    """Make the calculator forget the past and compute the present anew (see the module).

    Whoever starts from here, in this process or in another one, computes the same.
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
        parameters = json.loads(encode(calculator.todict()))
        return {"name": type(calculator).__name__, "parameters": parameters}
    models = [member.parameters["model"] for member in members]
    digests = [
        member.card.sha256 if member.card else model
        for member, model in zip(members, models, strict=True)
    ]
    shared = members[0].parameters
    if isinstance(calculator, CommitteeCalculator):
        return {"name": "phicalc-committee", **shared, "model": models, "sha256": digests}
    return {"name": "phicalc", **shared, "sha256": digests[0]}


def _members(calculator: BaseCalculator) -> list[PhiCalculator]:
    """Return our calculators that make up one; none if it is of another kind."""
    if isinstance(calculator, CommitteeCalculator):
        return calculator.members
    return [calculator] if isinstance(calculator, PhiCalculator) else []


def _describe_structure(atoms: Atoms) -> dict[str, Any]:
    """Describe what does not move: elements, masses, boundary conditions, constraints."""
    masses = np.ascontiguousarray(atoms.get_masses())
    digest = hashlib.sha256(atoms.numbers.astype("<i8").tobytes() + masses.tobytes())
    return {
        "formula": atoms.get_chemical_formula(),
        "elements and masses": digest.hexdigest()[:16],
        "pbc": atoms.pbc.tolist(),
        "constraints": encode([item.todict() for item in atoms.constraints]),
        "environment": _environment(atoms),
    }


def _environment(atoms: Atoms) -> str | None:
    """Describe total charge, field and fragments, for a calculator that knows of them."""
    members = _members(atoms.calc)
    return repr(environment_of(atoms, members[0].parameters)) if members else None
