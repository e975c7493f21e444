"""Pairs of similar frames: near duplicates, and whether energies, forces and stresses fit together.

Between two near frames the energy changes by the work of the forces and of the stress, whatever the
level of theory: ``E₂ − E₁ ≈ −½ (F₁ + F₂)·Δr + ½ (V₁σ₁ + V₂σ₂):ε`` (the trapezoidal rule, exact to
third order). A slope other than 1 tells a wrong unit or sign.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import get_distances
from jaxtyping import Float64

from phicalc.data.frames import LabelledAtoms

#: Frames whose atoms differ by less (root mean square, Å) are near duplicates.
NEAR = 0.01

#: Pairs that differ by more (root mean square, Å) say nothing about units; nor do fewer pairs.
FAR, ENOUGH = 0.2, 10

#: Partners that are looked at for each frame, and atoms between which distances are compared first.
_PARTNERS, _ANCHORS = 5, 6


class Pair(NamedTuple):
    """Two frames of the same atoms in the same order, and what lies between them."""

    first: int
    second: int
    distance: float
    """Root mean square displacement of the atoms in Å, after translation, rotation and strain."""
    energy: float
    """Difference of the energies in eV."""
    force_work: float
    """What the forces expect of it, in eV."""
    stress_work: float
    """What the stresses expect of it, in eV; 0 for the same cell, NaN without stresses."""


def similar_pairs(frames: Sequence[LabelledAtoms]) -> list[Pair]:
    """Pair frames with those most like them, each pair once; atoms are not permuted."""
    groups = defaultdict(list)
    for number, frame in enumerate(frames):
        atoms = frame.atoms
        groups[atoms.numbers.tobytes(), atoms.pbc.tobytes(), frame.total_charge].append(number)
    found = {}
    for members in groups.values():
        for i, j in _candidates([frames[n].atoms for n in members]):
            first, second = sorted((members[i], members[j]))
            if (first, second) not in found:
                found[first, second] = _pair(frames, first, second)
    return list(found.values())


def _candidates(structures: Sequence[Atoms]) -> Iterator[tuple[int, int]]:
    """Pairs of structures in which the distances between some atoms are alike."""
    from scipy.spatial import cKDTree

    if len(structures) < 2:
        return
    n_atoms = len(structures[0])
    anchors = np.unique(np.linspace(0, n_atoms - 1, _ANCHORS).astype(int))
    rows, columns = np.triu_indices(len(anchors), k=1)
    points = []
    for atoms in structures:
        chosen = atoms.positions[anchors]
        lengths = get_distances(chosen, cell=atoms.cell, pbc=atoms.pbc)[1][rows, columns]
        points.append([*lengths, *(atoms.cell.lengths() * atoms.pbc)])
    table = np.array(points)
    neighbors = cKDTree(table).query(table, k=min(_PARTNERS + 1, len(table)))[1]
    for i, row in enumerate(neighbors):
        yield from ((i, int(j)) for j in row if j != i)


def _pair(frames: Sequence[LabelledAtoms], first: int, second: int) -> Pair:
    """Compare two frames."""
    one, other = frames[first], frames[second]
    forces = [frame.labels.forces.numpy() for frame in (one, other)]
    if one.atoms.pbc.any():
        shift, strain = _periodic_shift(one.atoms, other.atoms)
    else:
        strain = np.zeros((3, 3))
        shift, rotation = _open_shift(one.atoms, other.atoms)
        forces[1] = forces[1] @ rotation.T
    stress_work = 0.0
    if np.abs(strain).max() > 1e-9:
        virials = [
            frame.atoms.cell.volume * frame.labels.stress[0].numpy() if frame.atoms.cell.rank == 3
            else np.full((3, 3), np.nan)
            for frame in (one, other)
        ]  # fmt: skip
        stress_work = float(np.sum((virials[0] + virials[1]) * strain) / 2)
    return Pair(
        first,
        second,
        float(np.sqrt((shift**2).sum(axis=1).mean())) + float(np.abs(strain).max()),
        float(other.labels.energy - one.labels.energy),
        float(-np.sum((forces[0] + forces[1]) * shift) / 2),
        stress_work,
    )


def _open_shift(
    one: Atoms, other: Atoms
) -> tuple[Float64[np.ndarray, "n_atoms 3"], Float64[np.ndarray, "3 3"]]:
    """Displacements from one molecule to another turned onto it, and the turn."""
    first = one.positions - one.positions.mean(axis=0)
    second = other.positions - other.positions.mean(axis=0)
    u, _, vt = np.linalg.svd(first.T @ second)
    turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return second @ turn.T - first, turn


def _periodic_shift(
    one: Atoms, other: Atoms
) -> tuple[Float64[np.ndarray, "n_atoms 3"], Float64[np.ndarray, "3 3"]]:
    """Displacements in the mean cell, common translation taken off, and the strain of the cell."""
    cells = [atoms.cell.complete().array for atoms in (one, other)]
    deformation = np.linalg.solve(cells[0], cells[1])
    fractional = other.positions @ np.linalg.inv(cells[1]) - one.positions @ np.linalg.inv(cells[0])
    fractional -= np.round(fractional - fractional[0]) * one.pbc
    shift = (fractional - fractional.mean(axis=0)) @ ((cells[0] + cells[1]) / 2)
    return shift, (deformation + deformation.T) / 2 - np.eye(3)


class Fit(NamedTuple):
    """How differences of energies follow the work that labels expect."""

    slope: float
    correlation: float
    n_pairs: int


def fit_forces(pairs: Sequence[Pair]) -> Fit | None:
    """Fit energy differences to the work of the forces, at the same cell; None for few pairs."""
    chosen = [p for p in _nearest_first(pairs) if p.distance > NEAR and not p.stress_work]
    return _fit([(p.force_work, p.energy) for p in chosen])


def fit_stress(pairs: Sequence[Pair]) -> Fit | None:
    """Fit what forces leave of the energy differences to the work of the stress."""
    chosen = [
        p
        for p in _nearest_first(pairs)
        if p.stress_work and abs(p.stress_work) > 0.1 * abs(p.force_work)
    ]
    return _fit([(p.stress_work, p.energy - p.force_work) for p in chosen])


def _nearest_first(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted((p for p in pairs if p.distance < FAR), key=lambda p: p.distance)


def _fit(rows: list[tuple[float, float]]) -> Fit | None:
    """Slope through the origin, robust, and correlation, of the first half of the pairs."""
    table = np.array([row for row in rows if np.isfinite(row).all()]).reshape(-1, 2)
    table = table[np.abs(table[:, 0]) > 1e-6]
    table = table[: max(ENOUGH, len(table) // 2)]  # the rule errs by the cube of the distance
    if len(table) < ENOUGH:
        return None
    slope = float(np.median(table[:, 1] / table[:, 0]))
    size = float(np.linalg.norm(table[:, 0]) * np.linalg.norm(table[:, 1]))
    correlation = float(table[:, 0] @ table[:, 1]) / max(size, 1e-30)
    return Fit(slope, correlation, len(table))
