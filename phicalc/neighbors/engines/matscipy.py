"""Cell lists of matscipy (https://github.com/libAtoms/matscipy)."""

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from phicalc.hints import install_hint
from phicalc.neighbors.enclosure import enclose
from phicalc.neighbors.missing import missing
from phicalc.neighbors.record import Box, Pairs


def search(positions: Float64[ndarray, "n_atoms 3"], box: Box, cutoff: float) -> Pairs:
    """Return the pairs within the cutoff; positions, cell and cutoff are in Å.

    Raises
    ------
    ImportError
        Without matscipy.
    """
    try:
        from matscipy.neighbours import neighbour_list
    except ImportError as error:
        raise missing("matscipy", install_hint("materials"), error) from error
    # Every bin takes memory, also an empty one.
    moved, vectors, reach = enclose(positions, box, cutoff, lambda bins: bool(bins.prod() > 1e6))
    centers, neighbors, shifts, distances = neighbour_list(
        "ijSd", positions=moved, cell=vectors, pbc=[True, True, True], cutoff=reach
    )
    result = Pairs(
        centers.astype(np.int64), neighbors.astype(np.int64), shifts.astype(np.int64), distances
    )
    return result if reach == cutoff else result.take(result.distances < cutoff)
