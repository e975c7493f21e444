"""Cardinal B-splines: how a point charge is laid on a mesh, and what that costs in accuracy."""

import itertools
import math
from bisect import bisect_left
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor


@cache
def _pieces(order: int) -> Float64[np.ndarray, "p p"]:
    """Polynomials of the B-spline M_p: row j holds the coefficients (by power of t) of M_p(t + j).

    From the recursion ``(p−1) M_p(x) = x M_{p−1}(x) + (p − x) M_{p−1}(x − 1)``, M_1 = 1 on [0, 1).
    """
    pieces = [np.polynomial.Polynomial([1.0])]
    t = np.polynomial.Polynomial([0.0, 1.0])
    nothing = np.polynomial.Polynomial([0.0])
    for p in range(2, order + 1):
        rising, falling = [*pieces, nothing], [nothing, *pieces]
        pieces = [((t + j) * rising[j] + (p - j - t) * falling[j]) / (p - 1) for j in range(p)]
    table = np.zeros((order, order))
    for j, piece in enumerate(pieces):
        table[j, : len(piece.coef)] = piece.coef
    return table


def spline_weights(offset: Float[Tensor, "3 n"], order: int) -> Float[Tensor, "p 3 n"]:
    """Shares of the mesh points ``floor(u) − j``, j = 0 … p−1, in a charge at u.

    Polynomials in the offset ``u − floor(u)``, hence differentiable; they sum to one.
    """
    return _polynomials(offset, _pieces(order))


def spline_slopes(offset: Float[Tensor, "3 n"], order: int) -> Float[Tensor, "p 3 n"]:
    """Differentiate `spline_weights` with respect to the offset."""
    pieces = _pieces(order)
    return _polynomials(offset, pieces[:, 1:] * np.arange(1, order))


def _polynomials(
    x: Float[Tensor, "3 n"], coefficients: Float64[np.ndarray, "p q"]
) -> Float[Tensor, "p 3 n"]:
    """Values of polynomials; coefficients by rows, from the constant upwards."""
    powers = [torch.ones_like(x)]
    for _ in range(coefficients.shape[1] - 1):
        powers.append(powers[-1] * x)
    return torch.tensordot(torch.from_numpy(coefficients).to(x), torch.stack(powers), dims=1)


@cache
def overlap(points: int, order: int, harmonic: int) -> Float64[np.ndarray, " n"]:
    """How a charge laid on one axis of a mesh overlaps with itself, per frequency of the mesh.

    The squared transform of the shares of a charge at u (in mesh points) is a periodic function of
    u, ``Σ_h c_h cos(2πhu)`` over all integers h; this is c_h. In Fourier space c_0 is the sum over
    the aliases of Ŵ², with the transform Ŵ = sinc^p of the spline.
    """
    steps = np.arange(1 - order, order)
    nodes, weights = np.polynomial.legendre.leggauss(order + 2 * harmonic + 8)
    u = 0.5 * (nodes + 1)
    spline = np.zeros((3 * order, len(u)))  # M_p(u + j) for j = −p … 2p−1
    powers = u[:, None] ** np.arange(order)
    spline[order : 2 * order] = _pieces(order) @ powers.T
    shifted = np.stack([np.roll(spline, step, axis=0) for step in steps])
    integrals = 0.5 * (spline * shifted * np.cos(2 * np.pi * harmonic * u) * weights).sum((1, 2))
    return np.cos(2 * np.pi * np.outer(np.fft.fftfreq(points), steps)) @ integrals


@cache
def deconvolution(points: int, order: int) -> Float64[np.ndarray, " n"]:
    """Factor by which one axis of the mesh must be multiplied in Fourier space, per frequency.

    ``Ŵ²/(Σ_m Ŵ_m²)²`` with the sum over aliases: the influence function that minimises the mean
    error of the energy (Ballenegger, Cerdà & Holm, J. Chem. Theory Comput. 8, 936 (2012)), for an
    interaction that has decayed at the aliases.
    """
    frequency = np.fft.fftfreq(points)
    return np.sinc(frequency) ** (2 * order) / overlap(points, order, 0) ** 2


def smooth_size(at_least: float) -> int:
    """Return the smallest even number of mesh points without prime factors beyond 5.

    Raises
    ------
    ValueError
        If no such number is large enough.
    """
    sizes = _smooth_numbers()
    if not at_least <= sizes[-1]:
        raise ValueError(
            f"a mesh of {at_least:.3g} points along an axis is out of reach: ask for less accuracy "
            "or sum the structure without a mesh (method='ewald' or 'direct')"
        )
    return sizes[bisect_left(sizes, math.ceil(at_least))]


@cache
def _smooth_numbers() -> list[int]:
    """Even products of 2, 3 and 5 in rising order."""
    powers = itertools.product(range(1, 24), range(15), range(11))
    numbers = (2**a * 3**b * 5**c for a, b, c in powers)
    return sorted(number for number in numbers if number <= 10_000_000)
