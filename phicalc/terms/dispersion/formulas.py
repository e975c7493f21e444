r"""Formulae of the damped 1/r⁶, without any sum. In 1/Å⁶, with lengths in Å.

``f(r)/r⁶`` with ``f(r) = 1 − exp(−x²) (1 + x² + x⁴/2)`` and x = ar. The damping removes the
singularity, and a is chosen so that f is nearly 1 where the network no longer sees anything. What
is left is smooth everywhere, so that lattices are summed in reciprocal space alone: it is the
smooth part of an Ewald sum of 1/r⁶. The network learns the other part.

References
----------
Tang & Toennies, J. Chem. Phys. 80, 3726 (1984) (with exp(−br)); Williams, Acta Cryst. A 27, 452
(1971); Karasawa & Goddard, J. Phys. Chem. 93, 7320 (1989).
"""

import math
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.autograd import Function

from phicalc.nn import smooth_step

#: Damping parameter a times the cutoff of the network: f is 0.5 at 0.55 and 0.994 at 1 times the
#: cutoff. If it were twice as large, sums would cost eight times as much.
REACH = 3.0
#: Part of the largest k up to which nothing fades.
START = 0.93
#: Below this x², where the formula cancels, a series takes its place.
_NEAR = 0.1
#: Pairs that fit a cache together with what is made of them.
_AT_A_TIME = 8192


def damping_parameter(cutoff: float) -> float:
    """Parameter a in 1/Å for a cutoff in Å."""
    return REACH / cutoff


def fading(part: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Factor, C², from 1 at the part `START` of the largest k to 0 at that k.

    The energy thus is smooth although vectors k come and go.
    """
    return 1 - smooth_step((part - START) / (1 - START))


def attraction(squared: Float64[Tensor, " n"], a: float) -> Float64[Tensor, " n"]:
    """``f(r)/r⁶`` from r². Differentiable as often as wanted."""
    if torch.compiler.is_compiling():  # which fuses the plain formula and derives it by itself
        return _attraction(squared, a)
    return _Attraction.apply(squared, a)


def _attraction(squared: Float64[Tensor, " n"], a: float) -> Float64[Tensor, " n"]:
    """Plain formula of `attraction`."""
    z = a * a * squared
    near, far = z.clamp(max=_NEAR), z.clamp(min=_NEAR)
    w = torch.exp(-far) * (1 + far + 0.5 * far * far)
    series = torch.zeros_like(near)
    for n in reversed(range(8)):
        series = series * near + 1 / math.factorial(n + 3)
    return a**6 * torch.where(z < _NEAR, torch.exp(-near) * series, (1 - w) / (far * far * far))


class _Attraction(Function):
    """`_attraction` with its first derivative in closed form: autograd takes three times as long.

    Further derivatives are those of the plain formula.
    """

    @staticmethod
    def forward(ctx: Any, squared: Float64[Tensor, " n"], a: float) -> Float64[Tensor, " n"]:
        found = [_with_slopes(part, a) for part in squared.split(_AT_A_TIME)]
        values, slopes = (torch.cat(each) for each in zip(*found, strict=True))
        ctx.save_for_backward(squared, slopes)
        ctx.a = a
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Float64[Tensor, " n"]) -> tuple[Any, ...]:
        squared, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():
            value = _attraction(squared, ctx.a)
            ones = torch.ones_like(value)
            (slopes,) = torch.autograd.grad(value, squared, ones, create_graph=True)
        return gradient * slopes, None


def _with_slopes(
    squared: Float64[Tensor, " n"], a: float
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """`_attraction`, and its derivative with respect to r²."""
    value = _attraction(squared, a)
    return value, (0.5 * a**6 * torch.exp(-a * a * squared) - 3 * value) / squared


def self_interaction(a: float) -> float:
    """Limit ``a⁶/6`` of `attraction` where r = 0: each atom must not meet itself."""
    return a**6 / 6


def uniform_interaction(a: float) -> float:
    """Limit ``π^1.5 a³/3`` of `transform` where k = 0, in 1/Å³: the integral of `attraction`."""
    return math.pi**1.5 / 3 * a**3


def transform(k_squared: Float64[Tensor, "..."], a: float) -> Float64[Tensor, "..."]:
    """Fourier transform of `attraction` in 1/Å³, for k ≠ 0.

    ``(2/3) π^1.5 a³ [(½ − b²) exp(−b²) + √π b³ erfc(b)]`` with ``b = k/2a``.
    """
    square = k_squared / (4 * a**2)
    b = square.sqrt()
    cubic = math.sqrt(math.pi) * square * b * torch.erfc(b)
    return 2 / 3 * math.pi**1.5 * a**3 * ((0.5 - square) * torch.exp(-square) + cubic)
