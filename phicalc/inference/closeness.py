"""Atoms that are too close for any model, or closer than those that a model has seen."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float64, Int64
from torch import Tensor

from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.inference.concerns import Concern
from phicalc.neighbors import NeighborList
from phicalc.skin import NeighborSearch

#: Atoms closer than this part of the sum of their covalent radii are in no training data: the
#: closest pairs in nature, H₂ and the hydrogen bond's O–H, are at 1.2 and 1.0 times that sum.
PLAUSIBLE_DISTANCE = 0.6


def _plausible() -> Float64[Tensor, "119 119"]:
    """Return the smallest plausible distance in Å of each pair of elements."""
    radii = torch.from_numpy(np.asarray(covalent_radii[:119], dtype=np.float64))
    return PLAUSIBLE_DISTANCE * (radii[:, None] + radii)


#: Smallest plausible distance in Å of each pair of elements, whatever the model.
PLAUSIBLE = _plausible()


class Closeness(NamedTuple):
    """The pair of atoms that is closest, measured by what is plausible for its elements."""

    distance: float
    """In Å."""
    limit: float
    """Distance in Å below which a pair of these elements is too close."""
    first: int
    second: int
    image: bool
    """Whether the second atom is a periodic image."""

    def text(self, atoms: Atoms) -> str:
        """Say how far which atoms are apart."""
        (i, one), (j, other) = ((i, atoms.symbols[i]) for i in (self.first, self.second))
        image = " (a periodic image)" if self.image else ""
        return f"atoms {i} ({one}) and {j} ({other}){image} are {self.distance:.3g} Å apart"


def closest(graph: AtomicGraph, limits: Float64[Tensor, "119 119"]) -> Closeness | None:
    """Return the pair that is too close by most; None if none is.

    Parameters
    ----------
    graph
        One structure.
    limits
        Smallest distance in Å of each pair of elements.
    """
    lengths = edge_vectors(graph).norm(dim=1)
    elements = torch.unique(graph.atomic_numbers)
    if not len(lengths) or lengths.min() >= limits[elements[:, None], elements].max():
        return None
    pairs = graph.atomic_numbers[graph.edge_index]
    allowed = limits[pairs[0], pairs[1]]
    edge = int((lengths / allowed).argmin())
    if lengths[edge] >= allowed[edge]:
        return None
    first, second = sorted(graph.edge_index[:, edge].tolist())
    image = bool(graph.edge_shifts[edge].any())
    return Closeness(float(lengths[edge]), float(allowed[edge]), first, second, image)


class _Watched(NamedTuple):
    """Pairs of atoms with these numbers, and the squares of the distances in Å² that they need."""

    pairs: NeighborList
    numbers: Int64[Tensor, " n_atoms"]
    squares: Float64[Tensor, " n_pairs"]


class PairWatch:
    """Looks for pairs that are too close, in one structure after the other.

    As long as a search only filters the pairs of a search before, one look at their lengths will do
    for most structures.

    Parameters
    ----------
    limits
        Smallest distance in Å of each pair of elements.
    """

    def __init__(self, limits: Float64[Tensor, "119 119"]):
        self.limits = limits
        self._watched: _Watched | None = None

    def closest(self, graph: AtomicGraph, search: NeighborSearch) -> Closeness | None:
        """Return what `closest` finds in the structure that `search` found last."""
        if search.filtered is None:
            return closest(graph, self.limits)
        pairs, squares = search.filtered
        known, numbers = self._watched, graph.atomic_numbers
        if known is None or known.pairs is not pairs or not known.numbers.equal(numbers):
            first, second = numbers[pairs.edge_index]
            known = self._watched = _Watched(pairs, numbers, self.limits[first, second] ** 2)
        near = bool((squares < known.squares).any())
        return closest(graph, self.limits) if near else None


def distance_concerns(pair: Closeness | None, atoms: Atoms) -> Iterator[Concern]:
    """Yield the pair of atoms that is too close."""
    if pair is not None:
        yield Concern(
            "distance",
            f"{pair.text(atoms)}, closer than {pair.limit:.3g} Å, where the model has no data; "
            "check for overlapping molecules, wrong cells and duplicates",
        )
