"""Bessel functions that can be differentiated more than once (beyond twice not at 0).

The values are scipy's, computed on the CPU: those of torch 2.13 have no gradients, and its J₀ and
J₁ are wrong by 4e-7 beyond x = 5.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

_Map = Callable[[Tensor], Tensor]


class _Known(Function):
    """A function of `scipy.special`, by name, whose derivative is known."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*n"], name: str, slope: _Map) -> Float[Tensor, "*n"]:
        from scipy import special

        ctx.save_for_backward(x)
        ctx.slope = slope
        return torch.as_tensor(getattr(special, name)(x.detach().cpu().numpy())).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "*n"]) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.slope(x), None, None


def j0(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Bessel function of the first kind, order 0."""
    return _Known.apply(x, "j0", lambda x: -j1(x))


def j1(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Bessel function of the first kind, order 1."""
    return _Known.apply(x, "j1", lambda x: j0(x) - _j1_over_x(x))


def k0(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Bessel function K₀, modified, of the second kind; `x` positive."""
    return _Known.apply(x, "k0", lambda x: -k1(x))


def k1(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Bessel function K₁, modified, of the second kind; `x` positive."""
    return _Known.apply(x, "k1", lambda x: -k0(x) - k1(x) / x)


def _j1_over_x(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """J₁(x)/x, which is ½ at 0."""
    nonzero = torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 0.5, j1(nonzero) / nonzero)
