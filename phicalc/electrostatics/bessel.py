"""Bessel functions that can be differentiated more than once (beyond twice not at 0).

The values are scipy's, computed on the CPU: those of torch 2.13 have no gradients, and its J₀ and
J₁ are wrong by 4e-7 beyond x = 5.
"""

from collections.abc import Callable
from typing import Any

import torch
from scipy import special
from torch import Tensor
from torch.autograd import Function


class _J0(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _evaluate(special.j0, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -gradient * j1(x)


class _J1(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _evaluate(special.j1, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        nonzero = torch.where(x == 0, 1.0, x)
        ratio = torch.where(x == 0, 0.5, j1(nonzero) / nonzero)
        return gradient * (j0(x) - ratio)


class _K0(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _evaluate(special.k0, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -gradient * k1(x)


class _K1(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _evaluate(special.k1, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -gradient * (k0(x) + k1(x) / x)


def j0(x: Tensor) -> Tensor:
    """Bessel function of the first kind, order 0."""
    return _J0.apply(x)


def j1(x: Tensor) -> Tensor:
    """Bessel function of the first kind, order 1."""
    return _J1.apply(x)


def k0(x: Tensor) -> Tensor:
    """Bessel function K₀, modified, of the second kind; `x` positive."""
    return _K0.apply(x)


def k1(x: Tensor) -> Tensor:
    """Bessel function K₁, modified, of the second kind; `x` positive."""
    return _K1.apply(x)


def _evaluate(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Values of one of scipy's functions."""
    return torch.as_tensor(function(x.detach().cpu().numpy())).to(x)
