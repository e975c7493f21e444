"""A periodic cell around any structure, for engines that want one."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from phicalc.neighbors.record import Box


def enclose(
    positions: Float64[ndarray, "n_atoms 3"],
    box: Box,
    cutoff: float,
    refuses: Callable[[Float64[ndarray, "3"]], bool],
) -> tuple[Float64[ndarray, "n_atoms 3"], Float64[ndarray, "3 3"], float]:
    """Give open axes a vector too, with so much vacuum that they count as periodic.

    Cell lists are made for periodic cells that are full of atoms: along open axes some become slow
    or wrong, in vacuum some fill the memory or divide by zero. Returns moved positions, such a cell
    and a longer cutoff (all in Å) if the engine refuses the numbers of bins per axis.
    """
    fractions = positions @ box.inverse
    closed = _close_gaps(fractions, box, 1.5 * cutoff)
    if closed is not fractions:
        fractions, positions = closed, closed @ box.vectors
    low, high = fractions.min(axis=0), fractions.max(axis=0)
    reach = cutoff
    while True:
        sizes = np.where(box.periodic, 1.0, high - low + 1.1 * reach)
        if not refuses(np.maximum(np.floor(sizes * box.heights / reach), 1.0)):
            break
        reach *= 1.1
    origin = np.where(box.periodic, 0.0, low - 0.5 * reach)
    return positions - origin @ box.vectors, sizes[:, None] * box.vectors, reach


def _close_gaps(
    fractions: Float64[ndarray, "n_atoms 3"], box: Box, longest: float
) -> Float64[ndarray, "n_atoms 3"]:
    """Shorten gaps between atoms along open axes to a length in Å beyond the cutoff.

    No pair bridges them, so distances within the cutoff stay, and empty space costs nothing.
    """
    closed = fractions
    for axis in np.flatnonzero(~box.periodic):
        order = np.argsort(fractions[:, axis])
        places = fractions[order, axis]  # in Å: vectors of open axes have unit length
        surplus = np.cumsum(np.maximum(np.diff(places) - longest, 0.0))
        if len(surplus) and surplus[-1] > 0:
            closed = closed.copy() if closed is fractions else closed
            closed[order[1:], axis] = places[1:] - surplus
    return closed
