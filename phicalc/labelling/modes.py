"""A sampler of small displacements along the normal modes of a structure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
from ase import Atoms, units
from jaxtyping import Float64

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.sampling import Chain
from phicalc.schema import AtLeast, Positive, checked, settings


class Modes(NamedTuple):
    """Normal modes without translations and rotations."""

    curvatures: Float64[np.ndarray, " n_modes"]
    """Mass-weighted force constants in eV/(Å² amu), ascending."""
    displacements: Float64[np.ndarray, "n_modes n_atoms 3"]
    """Orthonormal in mass-weighted coordinates, divided by √mass, in amu^(−1/2)."""


@settings
@dataclass(frozen=True)
class ModeSampler:
    """Displacements along every normal mode, both ways.

    Each process computes the force constants of a structure once, from differences of forces of the
    calculator that labels. Amplitudes are those where a mode holds half of k_B T.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    temperature: Annotated[float, Positive] = 300.0
    """K, for the largest amplitude."""
    points: Annotated[int, AtLeast(1)] = 1
    """Amplitudes of each mode and direction, at equal steps."""
    largest: Annotated[float, Positive] = 0.3
    """Largest displacement of an atom in Å, which limits soft modes."""
    delta: Annotated[float, Positive] = 0.01
    """Displacement in Å for the force constants."""

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain of one frame for each mode, amplitude and direction."""
        fractions = [
            sign * (i + 1) / self.points for i in range(self.points) for sign in (1.0, -1.0)
        ]
        return [
            Chain(number, 1, (), {"sample": "modes", "mode": mode, "amplitude": fraction})
            for number, atoms in enumerate(structures)
            for mode in range(3 * len(atoms) - len(_rigid_motions(atoms)))
            for fraction in fractions
        ]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Displace a copy of the structure along a mode."""
        bare = atoms.copy()
        bare.set_constraint()
        modes = _modes(_Structure(bare, spec, self.delta))
        mode = chain.note["mode"]
        energy = units.kB * self.temperature
        curvature = max(abs(float(modes.curvatures[mode])), 1e-12)
        shift = modes.displacements[mode] * np.sqrt(energy / curvature)
        shift *= min(1.0, self.largest / np.linalg.norm(shift, axis=1).max())
        bare.positions += chain.note["amplitude"] * shift
        return bare


class _Structure:
    """A structure and how its forces are computed, as a key."""

    def __init__(self, atoms: Atoms, spec: CalculatorSpec, delta: float):
        self.atoms, self.spec, self.delta = atoms, spec, delta
        self.key = (
            atoms.positions.tobytes(), atoms.numbers.tobytes(), atoms.cell.array.tobytes(),
            atoms.pbc.tobytes(), repr(atoms.info), repr(spec), delta,
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self.key == other.key


@lru_cache(maxsize=4)
def _modes(structure: _Structure) -> Modes:
    """Return the normal modes of a structure from differences of forces."""
    atoms, delta = structure.spec.prepare(structure.atoms), structure.delta
    atoms.calc = structure.spec.make(atoms)
    start, size = atoms.positions.copy(), 3 * len(atoms)
    hessian = np.empty((size, size))
    for k in range(size):
        forces = []
        for sign in (1, -1):
            moved = start.copy()
            moved.flat[k] += sign * delta
            atoms.positions = moved
            forces.append(atoms.get_forces().ravel())
        hessian[k] = (forces[1] - forces[0]) / (2 * delta)
    roots = np.sqrt(np.repeat(atoms.get_masses(), 3))
    weighted = (hessian + hessian.T) / 2 / np.outer(roots, roots)
    rigid = _rigid_motions(structure.atoms)
    # The motions left, as a basis: translations and rotations cost nothing and are no modes.
    basis = np.linalg.svd(rigid * roots)[2][len(rigid) :]
    curvatures, vectors = np.linalg.eigh(basis @ weighted @ basis.T)
    modes = (vectors.T @ basis) / roots
    # The sign of an eigenvector means nothing, so it is fixed: frames must not depend on it.
    largest = np.abs(modes).round(6).argmax(axis=1)
    modes *= np.sign(modes[np.arange(len(modes)), largest])[:, None]
    return Modes(curvatures, modes.reshape(-1, len(atoms), 3))


def _rigid_motions(atoms: Atoms) -> Float64[np.ndarray, "n_rigid three_n"]:
    """Return orthonormal displacements that move a structure as a whole: 3, 5 or 6."""
    n_atoms = len(atoms)
    shifts = np.tile(np.eye(3), n_atoms) / np.sqrt(n_atoms)
    if atoms.pbc.any():
        return shifts
    centered = atoms.positions - atoms.positions.mean(axis=0)
    turns = np.stack([np.cross(axis, centered).ravel() for axis in np.eye(3)])
    _, sizes, rows = np.linalg.svd(turns, full_matrices=False)
    return np.concatenate([shifts, rows[sizes > 1e-3]])
