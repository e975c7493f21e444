"""Radial functions as tables: what inference needs of them, at a fraction of the cost."""

import copy
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from phicalc.nn import MLP, RadialBasis

#: Intervals of a table: forces err by 4e-7 of the largest, less than rounding in single precision.
INTERVALS = 2048


class RadialTable(nn.Module):
    """Piecewise cubic polynomials with the values and slopes of a radial network at the knots.

    Coefficients are kept rather than values: differences of neighbouring values would lose half of
    the digits of the slope.

    Parameters
    ----------
    basis, radial
        Functions of the distance, and the network that they enter.
    """

    coefficients: Tensor

    def __init__(self, basis: RadialBasis, radial: MLP):
        super().__init__()
        dtype, device = basis.frequencies.dtype, basis.frequencies.device
        basis, radial = copy.deepcopy(basis).double(), copy.deepcopy(radial).double()
        self.spacing = basis.cutoff / INTERVALS
        knots = self.spacing * torch.arange(INTERVALS + 1, dtype=torch.float64, device=device)
        knots[0] = 1e-9  # sin(r)/r
        with torch.no_grad():
            values, slopes = torch.func.jvp(  # type: ignore[misc]  # two, without auxiliary output
                lambda r: radial(basis(r)), (knots,), (torch.full_like(knots, self.spacing),)
            )
            rise = values[1:] - values[:-1]
            first, second = slopes[:-1], slopes[1:]
            powers = [values[:-1], first, 3 * rise - 2 * first - second, first + second - 2 * rise]
        self.register_buffer("coefficients", torch.stack(powers, dim=1).to(dtype), persistent=False)

    def forward(
        self, lengths: Float[Tensor, "n_atoms n_slots"]
    ) -> Float[Tensor, "n_atoms slots c"]:
        """Values at distances in Å, up to the cutoff."""
        x = lengths / self.spacing
        interval = x.detach().floor().clamp(max=INTERVALS - 1)
        t = (x - interval).to(self.coefficients.dtype)
        return _Cubic.apply(t, interval.long(), self.coefficients)


class _Cubic(Function):
    """Cubic polynomials in t; for the slope they are looked up again, which costs less than memory.

    Can be differentiated once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        t: Float[Tensor, "n_atoms n_slots"],
        interval: Int64[Tensor, "n_atoms n_slots"],
        coefficients: Float[Tensor, "n_intervals 4 c"],
    ) -> Float[Tensor, "n_atoms n_slots c"]:
        ctx.save_for_backward(t, interval, coefficients)
        a, b, c, d = _Cubic.look_up(interval, coefficients)
        t = t[:, :, None]
        return a + t * (b + t * (c + t * d))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "n_atoms n_slots c"]
    ) -> tuple[Float[Tensor, "n_atoms n_slots"], None, None]:
        t, interval, coefficients = ctx.saved_tensors
        _, b, c, d = _Cubic.look_up(interval, coefficients)
        t = t[:, :, None]
        slope = b + t * (2 * c + t * (3 * d))
        return (gradient * slope).sum(2), None, None

    @staticmethod
    def look_up(
        interval: Int64[Tensor, "n_atoms n_slots"],
        coefficients: Float[Tensor, "n_intervals 4 c"],
    ) -> tuple[Float[Tensor, "n_atoms n_slots c"], ...]:
        """Coefficients of each power."""
        rows = coefficients.index_select(0, interval.reshape(-1))
        return rows.reshape(*interval.shape, 4, -1).unbind(2)
