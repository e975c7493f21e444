"""Samplers of short distances, of fragments apart, and of compressed structures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Annotated

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import find_mic
from jaxtyping import Bool, Float64

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.sampling import Chain
from phicalc.schema import AtLeast, Positive, checked, settings
from phicalc.structures import find_molecules


@settings
@dataclass(frozen=True)
class CompressedSampler:
    """Structures scaled: periodic ones along their periodic directions, molecules as a whole.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    smallest: Annotated[float, Positive] = 0.85
    """First factor of all lengths."""
    largest: Annotated[float, Positive] = 1.05
    """Last factor."""
    points: Annotated[int, AtLeast(1)] = 9
    """Frames of each structure, at equal steps of the factor."""
    rigid: bool = False
    """Keep the shape of finite molecules and move them alone."""
    displacement: Annotated[float, AtLeast(0)] = 0.02
    """Standard deviation of random displacements on top of it, in Å."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain of one frame for each factor."""
        factors = np.linspace(self.smallest, self.largest, self.points)
        return [
            Chain(number, 1, (self.seed, number, i), _note("compressed", scale=factor))
            for number in range(len(structures))
            for i, factor in enumerate(factors)
        ]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Scale a copy of the structure."""
        factor = chain.note["scale"]
        copy = _free_copy(atoms)
        directions = atoms.cell.array[atoms.pbc] if atoms.pbc.any() else np.eye(3)
        basis = np.linalg.qr(directions.T)[0]
        stretch = np.eye(3) + (factor - 1) * basis @ basis.T
        copy.set_cell(atoms.cell.array @ stretch)
        copy.positions = atoms.positions @ stretch
        if self.rigid:
            copy.positions = _moved_molecules(atoms, stretch)
        copy.positions += np.random.default_rng(chain.seed).normal(
            scale=self.displacement, size=(len(atoms), 3)
        )
        return copy


def _moved_molecules(
    atoms: Atoms, stretch: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "n_atoms 3"]:
    """Return positions in Å after the centers of molecules, not their shapes, are stretched."""
    molecules = find_molecules(atoms)
    whole = atoms.positions + molecules.images @ atoms.cell.array
    groups = molecules.wholes
    counts = np.bincount(groups)[:, None]
    sums = np.stack([np.bincount(groups, column) for column in whole.T], axis=1)
    centers = sums / counts
    return np.asarray(whole + (centers @ stretch - centers)[groups])


@settings
@dataclass(frozen=True)
class PairSampler:
    """Pairs of atoms of all elements in a structure, brought together.

    Atoms of two molecules approach with their molecules, atoms of one molecule or crystal alone,
    both by half of the way. Give dimers or clusters for distances between molecules.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    smallest: Annotated[float, Positive] = 0.5
    """First distance, in sums of the covalent radii."""
    largest: Annotated[float, Positive] = 1.5
    """Last distance, in the same unit."""
    points: Annotated[int, AtLeast(1)] = 8
    """Distances of each pair, at equal steps."""
    copies: Annotated[int, AtLeast(1)] = 2
    """Pairs of atoms for each pair of elements, drawn among the nearest ten."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain of one frame for each distance of each pair."""
        factors = np.linspace(self.smallest, self.largest, self.points)
        return [
            Chain(number, 1, (self.seed, number), _note("pairs", atoms=pair, distance=d))
            for number, atoms in enumerate(structures)
            for pair in self._pairs(atoms, number)
            for d in factors * covalent_radii[atoms.numbers[list(pair)]].sum()
        ]

    def _pairs(self, atoms: Atoms, number: int) -> Iterator[tuple[int, int]]:
        """Yield the pairs of atoms of a structure that shall approach."""
        distances = atoms.get_all_distances(mic=True)
        elements = sorted(set(atoms.symbols), key=atomic_numbers.__getitem__)
        rng = np.random.default_rng((self.seed, number))
        for one, other in combinations_with_replacement(elements, 2):
            pairs = [
                (int(i), int(j))
                for i in np.flatnonzero(atoms.symbols == one)
                for j in np.flatnonzero(atoms.symbols == other)
                if i < j or one != other
            ]
            nearest = sorted(pairs, key=lambda pair: (round(distances[pair], 6), pair))[:10]
            drawn = rng.permutation(len(nearest))[: self.copies]
            yield from (nearest[k] for k in drawn)

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Bring two atoms of a copy to a distance."""
        first, second = chain.note["atoms"]
        copy = _free_copy(atoms)
        vector = copy.positions[second] - copy.positions[first]
        vector, length = find_mic(vector, copy.cell, copy.pbc)
        molecules = find_molecules(copy)
        labels = molecules.labels
        apart = labels[first] != labels[second] and molecules.finite[labels[second]]
        if apart:  # made whole first: the molecule moves as one
            copy.positions += molecules.images @ copy.cell.array
        shift = vector / length * (chain.note["distance"] - length)
        if apart:
            copy.positions[labels == labels[second]] += shift
        else:
            copy.positions[second] += shift / 2
            copy.positions[first] -= shift / 2
        return copy


@settings
@dataclass(frozen=True)
class DissociationSampler:
    """Molecules taken apart: a cluster into its molecules, one molecule at its bonds.

    Bonds are cut where the molecule falls into two parts. Closed-shell references describe what
    becomes of them less and less well: set ``info["multiplicity"]`` where the fragments are
    radicals.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range, and for periodic structures.
    """

    largest: Annotated[float, Positive] = 6.0
    """Largest distance in Å that the parts are pulled apart."""
    points: Annotated[int, AtLeast(1)] = 12
    """Distances of each way to divide the structure, closer together where they are small."""
    copies: Annotated[int, AtLeast(1)] = 10
    """Ways to divide each structure at most, drawn by the seed."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain of one frame for each distance of each division.

        Raises
        ------
        ValueError
            For periodic structures.
        """
        pulls = self.largest * (np.arange(1, self.points + 1) / self.points) ** 1.5
        return [
            Chain(number, 1, (self.seed, number), _note("dissociation", part=part, pulled=pull))
            for number, atoms in enumerate(structures)
            for part in self._parts(atoms, number)
            for pull in pulls
        ]

    def _parts(self, atoms: Atoms, number: int) -> list[tuple[int, ...]]:
        """Return the atoms of the part that moves, for each way to divide a structure."""
        if atoms.pbc.any():
            raise ValueError(
                f"structure {number}, {atoms.get_chemical_formula()}, is periodic: fragments have "
                "nowhere to go. Give molecules or clusters without periodic directions"
            )
        labels = find_molecules(atoms).labels
        if labels.max(initial=0) > 0:
            sides = [labels == label for label in range(labels.max() + 1)]
        else:
            sides = [side for _, _, side in cuts(atoms)]
        rng = np.random.default_rng((self.seed, number))
        chosen = sorted(rng.permutation(len(sides))[: self.copies].tolist())
        return [tuple(np.flatnonzero(sides[k]).tolist()) for k in chosen]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Pull a part of a copy away from the rest, along the line between the nearest atoms."""
        copy = _free_copy(atoms)
        moving = np.isin(np.arange(len(atoms)), chain.note["part"])
        ours, theirs = np.flatnonzero(moving), np.flatnonzero(~moving)
        distances = atoms.get_all_distances()[np.ix_(ours, theirs)]
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        direction = atoms.positions[ours[i]] - atoms.positions[theirs[j]]
        copy.positions[moving] += chain.note["pulled"] * direction / np.linalg.norm(direction)
        return copy


def cuts(atoms: Atoms) -> Iterator[tuple[int, int, Bool[np.ndarray, " n_atoms"]]]:
    """Yield bonds whose loss divides a molecule: two atoms, and which atoms go with the second.

    The second atom is on the smaller side.
    """
    bonds = find_molecules(atoms).bonds.tolist()
    for first, second in bonds:
        kept = [bond for bond in bonds if bond != [first, second]]
        side = _connected(second, kept, len(atoms))
        if side[first]:  # a ring
            continue
        if side.sum() > len(atoms) / 2:
            first, second, side = second, first, _connected(first, kept, len(atoms))
        yield first, second, side


def _connected(start: int, bonds: list[list[int]], n_atoms: int) -> Bool[np.ndarray, " n_atoms"]:
    """Return which atoms bonds connect to one atom."""
    found = np.zeros(n_atoms, dtype=bool)
    found[start], size = True, 0
    while size != found.sum():
        size = found.sum()
        for one, other in bonds:
            found[one] = found[other] = found[one] or found[other]
    return found


def _note(kind: str, **values: object) -> dict[str, object]:
    """Return what ``info`` of a frame says about how it was made; numbers are rounded."""
    plain = {k: round(float(v), 6) if isinstance(v, float) else v for k, v in values.items()}
    return {"sample": kind, **plain}


def _free_copy(atoms: Atoms) -> Atoms:
    """Copy a structure without constraints."""
    copy = atoms.copy()
    copy.set_constraint()
    return copy
