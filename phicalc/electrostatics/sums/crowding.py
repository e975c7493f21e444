"""How many atoms may act together where error estimates assume that each acts alone.

The estimates take the errors due to different neighbors as independent. In planes, in clumps and in
thin cells, which repeat their atoms along lines, the errors of neighbors of like charge add up.
"""

import math
from bisect import bisect

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phicalc.electrostatics.sums.boundary import complete_box

#: Splittings α in 1/Å for which neighbors are counted.
_SPLITTINGS = tuple(float(each) for each in np.geomspace(0.35, 1.6, 6))
#: Largest number of atoms whose neighbors are counted.
_CENTERS = 8
#: Where the wider Gaussian is cut off, in units of 1/α, and its weight: a uniform density counts
#: as zero.
_REACH = 4.0
_WEIGHT = 1 / (8 * (math.erf(_REACH / 2) - _REACH / math.sqrt(math.pi) * math.exp(-4.0)))


def crowding(
    positions: Float64[Tensor, "n 3"], cell: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"]
) -> tuple[float, ...]:
    """Return the mean number of neighbors that act together, for several splittings.

    It is ``2 Σ_j [exp(−α²r_ij²) − w exp(−α²r_ij²/4)]`` over neighbors and images, or over the
    images of the atom itself if that is more. A uniform density gives zero by the choice of w; a
    plane, where errors are largest, all within about 1/α.

    Parameters
    ----------
    positions, cell, pbc
        The structure, in Å; lattice vectors as short as possible.
    """
    n_atoms = len(positions)
    if n_atoms == 0:
        return ()
    centers = positions[:: max(1, n_atoms // _CENTERS)][:_CENTERS]
    origin = positions.new_zeros(1, 3)
    reach = _REACH / _SPLITTINGS[0]
    # Neighbors need not have like charges; the images of an atom have.
    images = _squares(origin, origin, cell, pbc, reach)
    neighbors = _squares(positions, centers, cell, pbc, reach)
    pairs = [(_excess(images, a, 1), _excess(neighbors, a, len(centers))) for a in _SPLITTINGS]
    return tuple(max(pair) for pair in pairs)


def _excess(squares: Float64[Tensor, " k"], splitting: float, n_centers: int) -> float:
    """Count of `crowding` for one α in 1/Å, from squared distances in Å²."""
    scaled = splitting**2 * squares
    scaled = scaled[scaled < _REACH**2]
    count = float((torch.exp(-scaled) - _WEIGHT * torch.exp(-0.25 * scaled)).sum())
    return max(0.0, 2 * (count / n_centers - (1 - _WEIGHT)))  # without the atom itself


def neighbors_together(counts: tuple[float, ...], splitting: float) -> float:
    """Interpolate the counts of `crowding` at a splitting α in 1/Å.

    Below the smallest one, planes are assumed: the number grows with the area.
    """
    if not counts:
        return 0.0
    if splitting <= _SPLITTINGS[0]:
        return counts[0] * (_SPLITTINGS[0] / splitting) ** 2
    upper = bisect(_SPLITTINGS, splitting)
    if upper == len(_SPLITTINGS):
        return counts[-1]
    low, high = _SPLITTINGS[upper - 1], _SPLITTINGS[upper]
    part = (splitting - low) / (high - low)
    return (1 - part) * counts[upper - 1] + part * counts[upper]


def _squares(
    positions: Float64[Tensor, "n 3"],
    centers: Float64[Tensor, "m 3"],
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    reach: float,
) -> Float64[Tensor, " k"]:
    """Squared distances in Å² that are shorter than `reach`, from each center to all images."""
    box = complete_box(cell, pbc, 1.0)
    inverse = torch.linalg.inv(box)
    limits = torch.where(pbc, torch.ceil(reach * inverse.norm(dim=0) + 0.5), 0.0).long().tolist()
    steps = [torch.arange(-n, n + 1, device=box.device) for n in limits]
    shifts = torch.cartesian_prod(*steps).to(box) @ box
    lengths, found = shifts.square().sum(1), []
    for center in centers:
        away = positions - center
        away = away - torch.where(pbc, (away @ inverse).round(), 0.0) @ box
        radii = away.square().sum(1)
        near = lengths < (reach + float(radii.max().sqrt())) ** 2
        squares = torch.addmm(radii[:, None] + lengths[near], away, shifts[near].T, alpha=2)
        found.append(squares[squares < reach**2])
    return torch.cat(found)
