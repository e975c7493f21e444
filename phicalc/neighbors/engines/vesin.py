"""Cell lists of vesin (https://github.com/Luthaf/vesin)."""

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from vesin import NeighborList as VesinNeighborList

from phicalc.neighbors.enclosure import enclose
from phicalc.neighbors.record import Box, Pairs


def search(positions: Float64[ndarray, "n_atoms 3"], box: Box, cutoff: float) -> Pairs:
    """Return the pairs within the cutoff; positions, cell and cutoff are in Å."""

    def refuses(bins: Float64[ndarray, "3"]) -> bool:
        # Version 0.6 shrinks more than 1e5 bins to that number and divides by zero in flat cells.
        total = bins.prod()
        return bool(total > 1e5 and bins.min() ** 3 * 1e5 < 64 * total)

    moved, vectors, reach = enclose(positions, box, cutoff, refuses)
    finder = VesinNeighborList(
        cutoff=reach, full_list=True, sorted=True, n_threads=torch.get_num_threads()
    )
    found = finder.compute(moved, vectors, [True, True, True], "PSd", copy=False)
    # Without a copy the arrays belong to the finder: astype and copy make them ours.
    pairs, shifts = found[0].astype(np.int64), found[1].astype(np.int64)
    result = Pairs(pairs[:, 0], pairs[:, 1], shifts, found[2].copy())
    return result if reach == cutoff else result.take(result.distances < cutoff)
