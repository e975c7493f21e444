"""A sampler of torsions: rotations about every bond between two parts of a molecule."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from ase import Atoms
from ase.constraints import FixInternals
from ase.optimize import LBFGS

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.deformations import cuts
from phicalc.labelling.sampling import Chain
from phicalc.schema import AtLeast, Positive, checked, settings
from phicalc.structures import find_molecules


@settings
@dataclass(frozen=True)
class TorsionSampler:
    """Rotations about bonds, single, double and amide ones alike, by full turns.

    Bonds in rings are left alone, and those to an atom without further neighbors. Atoms that
    overlap on the way give failed frames (``max_force``).

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    points: Annotated[int, AtLeast(2)] = 12
    """Angles of a turn, at equal steps."""
    relaxed: bool = False
    """Relax everything but the torsion at each angle, with the calculator that labels."""
    steps: Annotated[int, AtLeast(1)] = 20
    """With `relaxed`: steps of the relaxation at most."""
    fmax: Annotated[float, Positive] = 0.05
    """With `relaxed`: largest force at its end, in eV/Å."""
    displacement: Annotated[float, AtLeast(0)] = 0.0
    """Standard deviation of random displacements of rigid scans, in Å."""
    copies: Annotated[int, AtLeast(1)] = 20
    """Bonds of each structure at most, drawn by the seed."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain for each bond if frames follow from one another; else one for each angle."""
        chains = []
        for number, atoms in enumerate(structures):
            for torsion in self._torsions(atoms, number):
                note = {"sample": "torsions", "torsion": torsion}
                seed = (self.seed, number, *torsion)
                if self.relaxed:
                    step = 360.0 / self.points
                    chains.append(Chain(number, self.points, seed, {**note, "step": step}))
                    continue
                angles = np.arange(self.points) * 360.0 / self.points
                chains += [
                    Chain(number, 1, (*seed, i), {**note, "turned": float(angle)})
                    for i, angle in enumerate(angles)
                ]
        return chains

    def _torsions(self, atoms: Atoms, number: int) -> list[tuple[int, int, int, int]]:
        """Return four bonded atoms for each bond that is turned about."""
        bonds = find_molecules(atoms).bonds
        found = []
        for first, second, _ in cuts(atoms):
            ends = []
            for atom, partner in ((first, second), (second, first)):
                near = bonds[(bonds == atom).any(axis=1)].ravel()
                ends.append([int(k) for k in near if k not in (atom, partner)])
            if all(ends):
                found.append((min(ends[0]), first, second, min(ends[1])))
        drawn = np.random.default_rng((self.seed, number)).permutation(len(found))
        return [found[k] for k in sorted(drawn[: self.copies].tolist())]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Turn a part of a copy, and relax the rest if asked."""
        torsion = chain.note["torsion"]
        copy = atoms.copy()
        copy.set_constraint()
        side = next(s for i, j, s in cuts(atoms) if (i, j) == (torsion[1], torsion[2]))
        angle = chain.note["step"] * (index > 0) if self.relaxed else chain.note["turned"]
        axis = atoms.positions[torsion[2]] - atoms.positions[torsion[1]]
        part = copy[side]
        part.rotate(angle, axis, center=atoms.positions[torsion[1]])
        copy.positions[side] = part.positions
        if not self.relaxed:
            noise = np.random.default_rng(chain.seed).normal(size=(len(atoms), 3))
            copy.positions += self.displacement * noise
            return copy
        return self._relax(copy, list(torsion), spec)

    def _relax(self, atoms: Atoms, torsion: list[int], spec: CalculatorSpec) -> Atoms:
        """Relax everything but one torsion."""
        moving = spec.prepare(atoms)
        moving.calc = spec.make(moving)
        held = [[moving.get_dihedral(*torsion), torsion]]
        moving.set_constraint(FixInternals(dihedrals_deg=held, epsilon=1e-6))
        LBFGS(moving, logfile=os.devnull).run(fmax=self.fmax, steps=self.steps)
        moving.set_constraint()
        return moving
