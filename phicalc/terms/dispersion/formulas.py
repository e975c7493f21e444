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
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.autograd import Function

from phicalc.nn import smooth_step

#: Part of a cutoff, of pairs or waves, up to which nothing fades.
START = 0.93
#: Pairs that fit a cache together with what is made of them.
_AT_A_TIME = 8192


def damping(length: Float64[Tensor, " n"], cutoff: float) -> Float64[Tensor, " n"]:
    """Factor f, C²: 0 up to half the cutoff, where the network sees all, and 1 beyond it."""
    return smooth_step(2 * length / cutoff - 1)


def fading(part: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Factor, C², from 1 at the part `START` of a cutoff to 0 at the cutoff.

    The energy thus is smooth although edges and vectors k come and go.
    """
    return 1 - smooth_step((part - START) / (1 - START))


def pair_interaction(
    squared: Float64[Tensor, " n"], splitting: Float64[Tensor, "#n"], cutoff: float
) -> Float64[Tensor, " n"]:
    """Part ``[f(r) − 1 + w(ar)]/r⁶`` that is summed pair by pair, from r².

    What is left of w at the cutoff fades out, so that edges may come and go; nothing does where
    there is no split. Differentiable in r², as often as wanted.
    """
    if torch.compiler.is_compiling():  # which fuses the plain formula and derives it by itself
        return _pairs(squared, splitting, cutoff)
    return _Pairs.apply(squared, splitting, cutoff)


def _pairs(
    squared: Float64[Tensor, " n"], splitting: Float64[Tensor, "#n"], cutoff: float
) -> Float64[Tensor, " n"]:
    """Plain formula of `pair_interaction`."""
    length, z = squared.sqrt(), splitting**2 * squared
    w = torch.exp(-z) * (1 + z + 0.5 * z**2)
    w = torch.where(splitting > 0, w * fading(length / cutoff), w)
    return (damping(length, cutoff) - 1 + w) / squared**3


class _Pairs(Function):
    """`_pairs` with its first derivative in closed form: autograd would take three times as long.

    Further derivatives are those of the plain formula.
    """

    @staticmethod
    def forward(
        ctx: Any, squared: Float64[Tensor, " n"], splitting: Float64[Tensor, "#n"], cutoff: float
    ) -> Float64[Tensor, " n"]:
        parts = zip(
            squared.split(_AT_A_TIME), splitting.expand_as(squared).split(_AT_A_TIME), strict=True
        )
        found = [_with_slopes(*part, cutoff) for part in parts]
        values, slopes = (torch.cat(each) for each in zip(*found, strict=True))
        ctx.save_for_backward(squared, splitting, slopes)
        ctx.cutoff = cutoff
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Float64[Tensor, " n"]) -> tuple[Any, ...]:
        squared, splitting, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():
            value = _pairs(squared, splitting, ctx.cutoff)
            ones = torch.ones_like(value)
            (slopes,) = torch.autograd.grad(value, squared, ones, create_graph=True)
        return gradient * slopes, None, None


def _with_slopes(
    squared: Float64[Tensor, " n"], splitting: Float64[Tensor, " n"], cutoff: float
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """`_pairs`, and its derivative with respect to r²."""
    part = squared.sqrt() / cutoff
    x, y = (2 * part - 1).clamp_(0, 1), ((part - START) / (1 - START)).clamp_(0, 1)
    split = splitting > 0
    fades = torch.where(split, (y * (1 - y)).square_(), 0.0).mul_(30 / (1 - START))
    faded = torch.where(split, 1 - y * y * y * (10 - 15 * y + 6 * y * y), 1.0)
    z = splitting * splitting * squared
    decay = torch.exp(-z)
    w = decay * (1 + z + 0.5 * z * z)
    by_part = 60 * (x * (1 - x)).square_() - w * fades
    by_decay = splitting * splitting * z * z * decay * faded
    value = x * x * x * (10 - 15 * x + 6 * x * x) - 1 + w * faded
    cube = squared * squared * squared
    slope = by_part / (2 * cutoff * cutoff * part) - 0.5 * by_decay - 3 * value / squared
    return value / cube, slope / cube


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
