"""Quantities that stay within physical bounds, whatever a network makes of an odd structure."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def bounded(value: Float[Tensor, "*n"], largest: float) -> Float[Tensor, "*n"]:
    """Return about `value` where it is small, and never more than `largest` in size."""
    return largest * torch.tanh(value / largest)


def between(raw: Float64[Tensor, "*n"], low: float, high: float) -> Float64[Tensor, "*n"]:
    """Return numbers from `low` to `high` that grow with `raw`."""
    return low + (high - low) * torch.sigmoid(raw)


def raw_of(value: float, low: float, high: float) -> float:
    """Return the `raw` for which `between` returns a value."""
    share = (value - low) / (high - low)
    return math.log(share / (1 - share))
