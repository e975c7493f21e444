"""Periodic images as ghost atoms, for engines that know no periodicity."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from phicalc.neighbors.record import Box, Pairs


def among_images(
    positions: Float64[ndarray, "n_atoms 3"],
    box: Box,
    cutoff: float,
    search: Callable[
        [Float64[ndarray, "n_atoms 3"], Float64[ndarray, "n_ghosts 3"]],
        tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]],
    ],
) -> Pairs:
    """Add the images that matter as ghost atoms, and let `search` find pairs without periodicity.

    Positions and cutoff are in Å. `search` takes the wrapped atoms and the ghosts, and returns the
    two indices of every pair.
    """
    fractions = positions @ box.inverse
    wraps = np.where(box.periodic, np.floor(fractions), 0.0)
    wrapped = positions - wraps @ box.vectors
    atoms, images = _ghosts(fractions - wraps, box, cutoff)
    ghosts = wrapped[atoms] + images @ box.vectors
    centers, found = search(wrapped, ghosts)
    distances = np.linalg.norm(ghosts[found] - wrapped[centers], axis=1)
    neighbors = atoms[found]
    shifts = (images[found] + wraps[centers] - wraps[neighbors]).astype(np.int64)
    others = (centers != neighbors) | shifts.any(axis=1)
    return Pairs(centers, neighbors, shifts, distances).take(others)


def _ghosts(
    fractions: Float64[ndarray, "n_atoms 3"], box: Box, cutoff: float
) -> tuple[Int64[ndarray, " n_ghosts"], Int64[ndarray, "n_ghosts 3"]]:
    """Atoms and shifts of all images within the cutoff of the slab the atoms fill, axis by axis."""
    atoms = np.arange(len(fractions))
    images = np.zeros((len(fractions), 3), dtype=np.int64)
    for axis in np.flatnonzero(box.periodic):
        reach = cutoff / box.heights[axis] + 1e-6
        low, high = fractions[:, axis].min() - reach, fractions[:, axis].max() + reach
        steps = np.arange(math.floor(low) - 1, math.ceil(high) + 1)
        moved = fractions[atoms, axis][:, None] + steps
        rows, columns = np.nonzero((moved >= low) & (moved <= high))
        atoms, images = atoms[rows], images[rows]
        images[:, axis] = steps[columns]
    return atoms, images
