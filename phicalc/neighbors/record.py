"""Lists of pairs, and the cell that they are found in."""

from typing import NamedTuple

from jaxtyping import Bool, Float64, Int64, Shaped
from numpy import ndarray
from torch import Tensor


class NeighborList(NamedTuple):
    """Directed pairs of atoms within a cutoff.

    The vector of a pair is ``positions[j] + edge_shifts @ cell - positions[i]``. Sorted by center,
    then by neighbor and shift.
    """

    edge_index: Int64[Tensor, "2 n_edges"]
    """Row 0: center i, row 1: neighbor j."""
    edge_shifts: Int64[Tensor, "n_edges 3"]
    """Lattice shift of the neighbor, in cells; 0 along open axes."""


class Pairs(NamedTuple):
    """What an engine returns; it may contain pairs slightly longer than the cutoff."""

    centers: Int64[ndarray, " n_edges"]
    neighbors: Int64[ndarray, " n_edges"]
    shifts: Int64[ndarray, "n_edges 3"]
    distances: Float64[ndarray, " n_edges"]
    """In Å."""

    def take(self, chosen: Shaped[ndarray, " n"]) -> "Pairs":
        """Return the chosen pairs (a mask or indices)."""
        return Pairs(*(column[chosen] for column in self))


class Box(NamedTuple):
    """A cell without zero vectors."""

    vectors: Float64[ndarray, "3 3"]
    """Rows; those of open axes are unit vectors perpendicular to all others."""
    inverse: Float64[ndarray, "3 3"]
    heights: Float64[ndarray, "3"]
    """Distance between opposite faces, in Å."""
    periodic: Bool[ndarray, "3"]
