r"""Formulae of the damped 1/r⁶, without any sum. In 1/Å⁶, with lengths in Å.

``f(r)/r⁶ = [f(r) − 1 + w(ar)]/r⁶ + [1 − w(ar)]/r⁶`` with ``w(x) = exp(−x²) (1 + x² + x⁴/2)``: the
damping f is 1 from the cutoff of the network on and w has faded there, so that edges carry the
first part. The second one is smooth everywhere and is summed in reciprocal space. a = 0 means no
split.

References
----------
Williams, Acta Cryst. A 27, 452 (1971); Karasawa & Goddard, J. Phys. Chem. 93, 7320 (1989).
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

#: Part of a cutoff, of pairs or waves, up to which nothing fades.
START = 0.93


def damping(length: Float64[Tensor, " n"], cutoff: float) -> Float64[Tensor, " n"]:
    """Factor f, C²: 0 up to half the cutoff, where the network sees all, and 1 beyond it."""
    x = (2 * length / cutoff - 1).clamp(0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


def pair_interaction(
    squared: Float64[Tensor, " n"], splitting: Float64[Tensor, "#n"], cutoff: float
) -> Float64[Tensor, " n"]:
    """Part ``[f(r) − 1 + w(ar)]/r⁶`` that is summed pair by pair, from r².

    What is left of w at the cutoff fades out, so that edges may come and go; nothing does where
    there is no split.
    """
    length, z = squared.sqrt(), splitting**2 * squared
    w = torch.exp(-z) * (1 + z + 0.5 * z**2)
    w = torch.where(splitting > 0, w * fading(length / cutoff), w)
    return (damping(length, cutoff) - 1 + w) / squared**3


def self_interaction(splitting: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Limit ``a⁶/6`` of the smooth part where r = 0: each atom must not meet itself."""
    return splitting**6 / 6


def uniform_interaction(splitting: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Limit ``π^1.5 a³/3`` of `transform` where k = 0, in 1/Å³: the integral of the smooth part."""
    return math.pi**1.5 / 3 * splitting**3


def transform(
    k_squared: Float64[Tensor, "..."], splitting: float | Float64[Tensor, "..."]
) -> Float64[Tensor, "..."]:
    """Fourier transform of the smooth part in 1/Å³, for k ≠ 0.

    ``(2/3) π^1.5 a³ [(½ − b²) exp(−b²) + √π b³ erfc(b)]`` with ``b = k/2a``.
    """
    square = k_squared / (4 * splitting**2)
    b = square.sqrt()
    cubic = math.sqrt(math.pi) * square * b * torch.erfc(b)
    return 2 / 3 * math.pi**1.5 * splitting**3 * ((0.5 - square) * torch.exp(-square) + cubic)


def fading(part: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Factor, C², from 1 at the part `START` of a cutoff to 0 at the cutoff.

    The energy thus is smooth although edges and vectors k come and go.
    """
    x = ((part - START) / (1 - START)).clamp(0, 1)
    return 1 - x**3 * (10 - 15 * x + 6 * x**2)
