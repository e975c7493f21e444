"""Make the lists of all engines equal: one comparison with the cutoff, one order."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from phicalc.neighbors.record import Box, Pairs
from phicalc.neighbors.vectors import pair_vectors_of_arrays, points_forward


def within(
    pairs: Pairs, positions: Float64[ndarray, "n_atoms 3"], box: Box, cutoff: float, margin: float
) -> Pairs:
    """Drop pairs beyond the cutoff (Å), measured in the same way for every engine."""
    near = np.flatnonzero(pairs.distances > cutoff - margin)
    close = pairs.take(near)
    vectors = pair_vectors_of_arrays(
        positions, close.centers, close.neighbors, close.shifts, box.vectors
    )
    outside = near[np.sqrt((vectors**2).sum(axis=1)) >= cutoff]
    if not outside.size:
        return pairs
    inside = np.ones(len(pairs.centers), dtype=bool)
    inside[outside] = False
    return pairs.take(inside)


def sort(pairs: Pairs) -> Pairs:
    """Sort by center, neighbor and shift, so that the order depends on nothing else."""
    if not len(pairs.centers):
        return pairs
    columns = [pairs.centers, pairs.neighbors, *pairs.shifts.T]
    key, room = np.zeros_like(pairs.centers), 1
    for column in columns:
        lowest = int(column.min())
        size = int(column.max()) - lowest + 1
        room *= size
        if room >= 2**63:
            return pairs.take(np.lexsort(columns[::-1]))
        key = key * size + (column - lowest)
    return pairs if (key[1:] > key[:-1]).all() else pairs.take(np.argsort(key))


def first_of_each(pairs: Pairs) -> Bool[ndarray, " n_edges"]:
    """Mask one of the two directions of every pair."""
    forward = points_forward(pairs.shifts)
    return (pairs.centers < pairs.neighbors) | ((pairs.centers == pairs.neighbors) & forward)
