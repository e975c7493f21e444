"""Guard rails: warn of implausible states, stop a run that has failed, keep its last good state."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii

from phicalc.calculators.committee import CommitteeCalculator
from phicalc.md.folder import LAST_GOOD_FILE, RunFolder
from phicalc.md.output import frame_text
from phicalc.md.restart import with_parts
from phicalc.neighbors import neighbor_list, pair_vectors

#: Atoms nearer than this part of the sum of their covalent radii are in no training data: the
#: closest pairs in nature, H₂ and the hydrogen bond's O–H, stand at 1.2 and 1.0 times it.
PLAUSIBLE_DISTANCE = 0.6
#: Charges beyond this (e), or beyond the charge of the nucleus, are not those of ions in matter.
PLAUSIBLE_CHARGE = 4.0


class MDError(RuntimeError):
    """A run was stopped because its state is no longer physical, or because it cannot go on."""


class Guard:
    """Checks every step, and remembers the last good one.

    Parameters
    ----------
    atoms
        The moving atoms.
    max_force
        Largest force on an atom, in eV/Å.
    max_temperature
        Highest temperature, in K.
    committee_threshold
        Largest disagreement of a committee about the force on an atom, in eV/Å.
    text
        Turns a structure into the content of a file.
    """

    def __init__(
        self,
        atoms: Atoms,
        max_force: float,
        max_temperature: float,
        committee_threshold: float,
        text: Callable[[Atoms], bytes] = frame_text,
    ) -> None:
        self._atoms = atoms
        self._text = text
        self._max_force = max_force
        self._max_temperature = max_temperature
        self._committee_threshold = committee_threshold
        self._good: Atoms | None = None
        self._good_step = 0
        self._warned: set[str] = set()

    def check(self, step: int, temperature: float) -> None:
        """Accept the state of `step`, whose temperature is given in K.

        Raises
        ------
        MDError
            If forces or velocities are not finite, or beyond the limits.
        """
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

    def warn_of_extrapolation(self, step: int) -> None:
        """Warn, once in a run, of atoms beyond what the model has been trained on.

        They are too near each other, too charged, or the members of a committee disagree about the
        force on one.
        """
        if "distance" not in self._warned and (text := _too_near(self._atoms)):
            self._warn("distance", step, text)
        if "charge" not in self._warned and (text := _too_charged(self._atoms)):
            self._warn("charge", step, text)
        if "committee" not in self._warned and (text := self._disagreement()):
            self._warn("committee", step, text)

    def _disagreement(self) -> str:
        """Say where committees, alone or as parts of a sum, disagree too much."""
        committees = [
            part for part in with_parts(self._atoms.calc) if isinstance(part, CommitteeCalculator)
        ]
        found = (part.disagreement(self._committee_threshold) for part in committees)
        return next(filter(None, found), "")

    def _warn(self, kind: str, step: int, text: str) -> None:
        self._warned.add(kind)
        warnings.warn(
            f"step {step}: {text}. The model extrapolates: look at the structure before trusting "
            "what follows",
            stacklevel=2,
        )

    def _remember(self, step: int) -> None:
        """Keep positions, velocities and cell: three small copies per step."""
        if self._good is None:
            self._good = self._atoms.copy()
        self._good.set_cell(self._atoms.cell)
        self._good.arrays["positions"][:] = self._atoms.positions
        self._good.set_momenta(self._atoms.get_momenta(), apply_constraint=False)
        self._good_step = step

    def save_last_good(self, folder: RunFolder) -> str:
        """Write the last good state; return a sentence that says where it is."""
        if self._good is None:
            return "No good state was reached: relax the structure first (phicalc relax)."
        self._good.info["step"] = self._good_step
        try:
            folder.write(LAST_GOOD_FILE, self._text(self._good))
        except OSError as error:
            return f"The last good state could not be written ({error.strerror})."
        path = folder.where() / LAST_GOOD_FILE
        return (
            f"The last good state (step {self._good_step}) is in {path}. "
            "Relax the starting structure, or use a shorter timestep."
        )


def _too_near(atoms: Atoms) -> str:
    """Say which two atoms are implausibly near each other; empty if none are."""
    radii = PLAUSIBLE_DISTANCE * torch.from_numpy(covalent_radii[atoms.numbers])
    positions, cell = torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell.array)
    cutoff = 2 * float(radii.max())
    index, shifts = neighbor_list(positions, cell, torch.from_numpy(atoms.pbc), cutoff, half=True)
    if not index.shape[1]:
        return ""
    first, second = index
    distances = pair_vectors(positions, index, shifts.to(cell) @ cell).norm(dim=1)
    excess = distances - radii[first] - radii[second]
    pair = int(excess.argmin())
    if excess[pair] >= 0:
        return ""
    one, other = int(first[pair]), int(second[pair])
    return (
        f"atoms {one} ({atoms.symbols[one]}) and {other} ({atoms.symbols[other]}) are "
        f"{float(distances[pair]):.2f} Å apart, less than {PLAUSIBLE_DISTANCE} times the sum of "
        "their covalent radii"
    )


def _too_charged(atoms: Atoms) -> str:
    """Say which atom has an implausible charge; empty if none has."""
    charges = atoms.calc.results.get("charges")
    if charges is None:
        return ""
    excess = np.abs(charges) - np.minimum(atoms.numbers, PLAUSIBLE_CHARGE)
    atom = int(excess.argmax())
    if excess[atom] <= 0:
        return ""
    return f"the charge of atom {atom} ({atoms.symbols[atom]}) is {charges[atom]:+.2f} e"
