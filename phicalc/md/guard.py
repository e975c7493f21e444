"""Guard rails: stop a run that has gone wrong, and keep the last state that had not."""

from pathlib import Path

import numpy as np
from ase import Atoms

from phicalc.structures import write_structures


class MDError(RuntimeError):
    """A run was stopped because its state is no longer physical."""


class Guard:
    """Looks at every step; remembers the last good one.

    Parameters
    ----------
    atoms
        The moving atoms.
    max_force
        Largest force on an atom, in eV/Å.
    max_temperature
        Highest temperature, in K.
    """

    def __init__(self, atoms: Atoms, max_force: float, max_temperature: float) -> None:
        self._atoms = atoms
        self._max_force = max_force
        self._max_temperature = max_temperature
        self._good: Atoms | None = None
        self._good_step = 0

    def check(self, step: int, temperature: float) -> None:
        """Accept the state of `step`, or raise `MDError`."""
        forces = self._atoms.get_forces(apply_constraint=False)
        largest = float(np.linalg.norm(forces, axis=1).max(initial=0.0))
        if not np.isfinite(largest) or not np.isfinite(temperature):
            raise MDError(f"step {step}: forces or velocities are not finite numbers")
        if largest > self._max_force:
            atom = int(np.linalg.norm(forces, axis=1).argmax())
            raise MDError(
                f"step {step}: the force on atom {atom} ({self._atoms.symbols[atom]}) is "
                f"{largest:.1f} eV/Å, more than max_force = {self._max_force:g} eV/Å"
            )
        if temperature > self._max_temperature:
            raise MDError(
                f"step {step}: the temperature is {temperature:.0f} K, more than "
                f"max_temperature = {self._max_temperature:g} K"
            )
        self._remember(step)

    def _remember(self, step: int) -> None:
        """Keep positions, velocities and cell: three small copies per step."""
        if self._good is None:
            self._good = self._atoms.copy()
        self._good.set_cell(self._atoms.cell)
        self._good.arrays["positions"][:] = self._atoms.positions
        self._good.set_momenta(self._atoms.get_momenta(), apply_constraint=False)
        self._good_step = step

    def save_last_good(self, path: Path) -> str:
        """Write the last good state; return a sentence that says where it is."""
        if self._good is None:
            return "No good state was reached: relax the structure first (phicalc relax)."
        self._good.info["step"] = self._good_step
        write_structures(path, [self._good])
        return (
            f"The last good state (step {self._good_step}) is in {path}. "
            "Relax the starting structure, or use a shorter timestep."
        )
