"""The k vectors of a dispersion sum: those of a lattice, nodes of a quadrature along open axes.

The transform of the smooth part has no singularity. A sum over k vectors therefore becomes an
integral where an axis is open, and Gauss–Legendre quadrature does it to any accuracy: no vacuum, no
images. Since ``k³`` is not smooth at 0, each half of an open axis has its own nodes, which crowd
there.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from phicalc.neighbors import points_forward

#: Sums of more waves take minutes and gigabytes whatever the number of atoms.
MOST_WAVES = 1_000_000
#: Nodes of a quadrature for each unit of phase between two atoms, and for each decay of a Gaussian
#: (tests/terms/test_dispersion.py).
_PER_PHASE, _PER_DECAY = 0.35, 4.5


class Waves(NamedTuple):
    """Vectors k of one structure, one of each ±k, as places in the nodes along three axes."""

    places: Int64[Tensor, "n_k 3"]
    measure: Float64[Tensor, " n_k"]
    """Weight of each: 1, or that of the quadrature."""
    nodes: tuple[Float64[Tensor, " a"], Float64[Tensor, " b"], Float64[Tensor, " c"]]
    """Components in units of the vectors of the reciprocal box."""


@lru_cache(maxsize=8)
def find_waves(
    box: tuple[float, ...],
    pbc: tuple[bool, bool, bool],
    largest: float,
    n_nodes: tuple[int, int, int],
) -> Waves:
    """Return all k vectors up to `largest`, without 0.

    Parameters
    ----------
    box
        Nine numbers, edges as rows in Å; ``2π/largest`` long and perpendicular along open axes.
    pbc
        Which edges are periodic.
    largest
        Length of the largest k in 1/Å.
    n_nodes
        Of the quadrature in each half of an open axis (`nodes_for`).

    Raises
    ------
    ValueError
        For a box that takes more than a million waves.
    """
    edges = np.array(box).reshape(3, 3)
    last = np.floor(largest * np.linalg.norm(edges, axis=1) / (2 * np.pi)).astype(int).tolist()
    halves = [n if periodic else m for periodic, n, m in zip(pbc, last, n_nodes, strict=True)]
    n_waves = math.prod(2 * n + 1 for n in halves) / 2
    if n_waves > MOST_WAVES:
        raise ValueError(
            f"the dispersion sum of this structure needs {n_waves:.1e} waves: look for an atom far "
            "away from the others, or for a cell in the wrong unit"
        )
    each = zip(pbc, halves, strict=True)
    axes = [_integers(n) if periodic else _quadrature(n) for periodic, n in each]
    return _half_sphere(axes, 2 * np.pi * np.linalg.inv(edges).T, largest)


def nodes_for(largest: float, extent: float, splitting: float) -> int:
    """Return how many nodes half an open axis needs for a structure of this extent in Å."""
    needed = _PER_PHASE * largest * extent + _PER_DECAY * largest / (2 * splitting)
    return 4 * math.ceil(needed / 4)  # a few more, so that a simulation seldom asks for others


def _integers(last: int) -> tuple[Float64[ndarray, " n"], Float64[ndarray, " n"]]:
    """Components along a periodic axis, and their weights."""
    nodes = np.arange(-last, last + 1, dtype=float)
    return nodes, np.ones_like(nodes)


def _quadrature(n: int) -> tuple[Float64[ndarray, " n"], Float64[ndarray, " n"]]:
    """Nodes and weights of an integral from −1 to 1, n in each half."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    roots = 0.5 * (1 + nodes)
    nodes, weights = roots**2, weights * roots
    return np.concatenate([-nodes[::-1], nodes]), np.concatenate([weights[::-1], weights])


def _half_sphere(
    axes: list[tuple[Float64[ndarray, " _"], Float64[ndarray, " _"]]],
    reciprocal: Float64[ndarray, "3 3"],
    largest: float,
) -> Waves:
    """One of each ±k with 0 < |k| < `largest`."""
    axes = [tuple(each[axes[0][0] >= 0] for each in axes[0]), *axes[1:]]  # type: ignore[list-item]
    places = np.indices([len(nodes) for nodes, _ in axes]).reshape(3, -1)
    a, b, c = (nodes[place] for (nodes, _), place in zip(axes, places, strict=True))
    components = np.stack([a, b, c], axis=1)
    k = components @ reciprocal
    chosen = points_forward(components) & ((k * k).sum(1) < largest**2)
    weights = [weight[place] for (_, weight), place in zip(axes, places, strict=True)]
    x, y, z = (torch.from_numpy(nodes) for nodes, _ in axes)
    return Waves(
        torch.from_numpy(places[:, chosen].T.copy()),
        torch.from_numpy(np.prod(weights, axis=0)[chosen]),
        (x, y, z),
    )
