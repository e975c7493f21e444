"""Neighbor lists of structures that move: searched with a skin, then only filtered."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phicalc.neighbors import NeighborList, neighbor_list, pair_vectors

#: Width in Å: so much farther than the cutoff pairs are kept.
SKIN = 1.0


class _Reference(NamedTuple):
    """A structure and the pairs found in it."""

    positions: Float64[Tensor, "n_atoms 3"]
    cell: Float64[Tensor, "3 3"]
    pbc: Bool[Tensor, "3"]
    skin: float
    pairs: NeighborList
    offsets: Float64[Tensor, "n_pairs 3"]


class NeighborSearch:
    """`phicalc.neighbors.neighbor_list` for one structure after the other, as dynamics makes them.

    As soon as a structure is close to the one before, pairs are searched up to the cutoff plus a
    skin, and as long as no pair can have come from beyond it, only filtered by their distance. The
    list is the same as that of a new search, in the same order.

    Parameters
    ----------
    cutoff
        In Å.
    engine, half
        As of `neighbor_list`.
    skin
        Width in Å; 0 searches every time.

    Attributes
    ----------
    uses, searches
        How often a list was asked for, and how often it was searched.
    filtered
        The pairs of which the last list is a part, and their squared lengths in Å²; None if it was
        searched.
    """

    def __init__(
        self, cutoff: float, *, engine: str = "auto", half: bool = False, skin: float = SKIN
    ):
        self.cutoff, self.engine, self.half, self.skin = cutoff, engine, half, skin
        self.uses = self.searches = 0
        self._last: _Reference | None = None
        self.filtered: tuple[NeighborList, Float64[Tensor, " n_pairs"]] | None = None

    def find(
        self,
        positions: Float64[Tensor, "n_atoms 3"],
        cell: Float64[Tensor, "3 3"],
        pbc: Bool[Tensor, "3"],
    ) -> NeighborList:
        """Return the pairs within the cutoff, of positions and lattice vectors in Å.

        See `neighbor_list`.
        """
        self.uses += 1
        last = self._last
        if last is None or not _same(last, positions, cell, pbc):
            approach = float("inf") if last is None else self._approach(last, positions, cell, pbc)
            if last is None or not last.skin - approach >= 1e-6:
                skin = self.skin if approach < self.skin else 0.0
                self._last = last = self._search(positions, cell, pbc, skin)
        if last.skin == 0:
            self.filtered = None
            return last.pairs
        return self._filter(last, positions, cell)

    def _search(
        self,
        positions: Float64[Tensor, "n_atoms 3"],
        cell: Float64[Tensor, "3 3"],
        pbc: Bool[Tensor, "3"],
        skin: float,
    ) -> _Reference:
        self.searches += 1
        pairs = neighbor_list(
            positions, cell, pbc, self.cutoff + skin, engine=self.engine, half=self.half
        )
        offsets = pairs.edge_shifts.to(cell) @ cell
        return _Reference(positions.clone(), cell.clone(), pbc.clone(), skin, pairs, offsets)

    def _filter(
        self,
        last: _Reference,
        positions: Float64[Tensor, "n_atoms 3"],
        cell: Float64[Tensor, "3 3"],
    ) -> NeighborList:
        """Take the pairs that are near enough now."""
        index, shifts = last.pairs
        offsets = last.offsets if torch.equal(cell, last.cell) else shifts.to(cell) @ cell
        x, y, z = pair_vectors(positions, index, offsets).unbind(1)
        squares = x * x + y * y + z * z
        self.filtered = last.pairs, squares
        inside = (squares < self.cutoff**2).nonzero().squeeze(1)
        return NeighborList(index.index_select(1, inside), shifts.index_select(0, inside))

    def _approach(
        self,
        last: _Reference,
        positions: Float64[Tensor, "n_atoms 3"],
        cell: Float64[Tensor, "3 3"],
        pbc: Bool[Tensor, "3"],
    ) -> float:
        """By how much two atoms beyond the list may have come nearer, in Å; infinite if unknown.

        The cell deforms everything by a matrix F, and atoms move by u on top of it: pairs of length
        d then are not shorter than ``s d − 2 max|u|`` with the smallest singular value s of F.
        """
        if positions.shape != last.positions.shape or not torch.equal(pbc, last.pbc):
            return float("inf")
        if not bool(positions.isfinite().all()) or not bool(cell.isfinite().all()):
            return float("inf")  # the search will say what is wrong
        moved, shrunk = positions - last.positions, 0.0
        if not torch.equal(cell, last.cell):
            if not bool(pbc.all()):
                return float("inf")  # cells of slabs and wires stay as they are, as a rule
            deformation = torch.linalg.solve(last.cell, cell)
            moved = positions - last.positions @ deformation
            shrunk = max(1 - float(torch.linalg.svdvals(deformation).min()), 0.0)
        if not moved.numel():
            return 0.0
        moved = moved - moved.mean(0)  # what all do together changes no distance
        largest = float((moved * moved).sum(1).max().sqrt())
        return 2 * largest + shrunk * (self.cutoff + last.skin)


def _same(
    last: _Reference,
    positions: Float64[Tensor, "n_atoms 3"],
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
) -> bool:
    """Whether this is the structure of the list."""
    now = (positions, cell, pbc)
    return all(map(torch.equal, now, (last.positions, last.cell, last.pbc)))
