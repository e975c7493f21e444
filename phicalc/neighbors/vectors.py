"""The vector of a pair: from its first atom to the image of its second."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor


def pair_vectors(
    positions: Float[Tensor, "n_atoms 3"],
    index: Int64[Tensor, "2 n_pairs"],
    offsets: Float[Tensor, "n_pairs 3"],
) -> Float[Tensor, "n_pairs 3"]:
    """Return ``r_j + offset − r_i`` in Å for pairs ``index = (i, j)``.

    Parameters
    ----------
    positions
        In Å.
    index
        Atoms of each pair.
    offsets
        Lattice vector of the image of the second atom, ``shifts @ cell``, in Å.
    """
    ends, starts = (positions.index_select(0, atoms) for atoms in (index[1], index[0]))
    return ends - starts + offsets


def pair_vectors_of_arrays(
    positions: Float[ndarray, "n_atoms 3"],
    first: Int64[ndarray, " n_pairs"],
    second: Int64[ndarray, " n_pairs"],
    shifts: Int64[ndarray, "n_pairs 3"],
    cell: Float[ndarray, "3 3"],
) -> Float[ndarray, "n_pairs 3"]:
    """Return ``r_j + shift·cell − r_i`` in Å; see `pair_vectors`.

    In this order of operations a pair and its reverse are equally long to the last bit.

    Parameters
    ----------
    positions
        In Å.
    first, second
        Atoms of each pair.
    shifts
        In cells.
    cell
        Lattice vectors as rows in Å.
    """
    vectors = positions[second] - positions[first]
    vectors += np.asarray(shifts[:, :, None] * cell).sum(axis=1)
    return vectors


def points_forward(vectors: Any) -> Any:
    """Tell each of several vectors from its opposite: True where the first non-zero part is > 0.

    For arrays and tensors of shape (n, 3); returns the same kind, of shape (n,).
    """
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
