"""Radial functions and sum over neighbours as one native operation, for inference."""

from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from phicalc.backbone.interaction import Convolution, EdgeFeatures
from phicalc.backbone.native import have_kernel
from phicalc.backbone.tables import RadialTable


def can_be_fused(convolution: Convolution) -> bool:
    """Whether there is a native operation for a convolution with a radial table."""
    table = convolution.table
    if table is None:
        return False
    return have_kernel(table.coefficients.unflatten(-1, (-1, convolution.channels)))


class FusedConvolution(nn.Module):
    """The same as a `Convolution` with a radial table. Results can be differentiated once.

    Parameters
    ----------
    convolution
        One of which `can_be_fused` is true.
    """

    table: Tensor

    def __init__(self, convolution: Convolution):
        super().__init__()
        assert isinstance(convolution.table, RadialTable)
        self.linear, self.spacing = convolution.linear, convolution.table.spacing
        norms = torch.cat([convolution.norms[l3**2] for _, _, l3 in convolution.paths])
        columns = norms.repeat_interleave(convolution.channels)
        table = convolution.table.coefficients * columns.to(convolution.table.coefficients)
        self.register_buffer("table", table.contiguous(), persistent=False)

    def forward(
        self, features: Float[Tensor, "n m n_in"], edges: EdgeFeatures
    ) -> Float[Tensor, "n m_out c"]:
        """Aggregate the messages of all neighbours."""
        result: Tensor = _Convolve.apply(
            self.linear(features), edges.neighbor, edges.harmonics, edges.lengths, self.table,
            self.spacing,
        )  # fmt: skip
        return result


class _Convolve(Function):
    """The native operation and its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        sent: Float32[Tensor, "n_sending m c"],
        neighbor: Int64[Tensor, "n_atoms n_slots"],
        harmonics: Float32[Tensor, "n_atoms n_slots m_out"],
        lengths: Float64[Tensor, "n_atoms n_slots"],
        table: Float32[Tensor, "n_intervals 4 columns"],
        spacing: float,
    ) -> Float32[Tensor, "n_atoms m_out c"]:
        ctx.save_for_backward(sent, neighbor, harmonics, lengths, table)
        ctx.spacing = spacing
        result: Tensor = torch.ops.phicalc.convolve_lengths(
            sent, neighbor, harmonics, lengths, table, spacing
        )
        return result

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float32[Tensor, "n_atoms m_out c"]
    ) -> tuple[Tensor | None, ...]:
        d_sent, d_harmonics, d_lengths = torch.ops.phicalc.convolve_lengths_backward(
            gradient, *ctx.saved_tensors, ctx.spacing
        )
        return d_sent, None, d_harmonics, d_lengths, None, None
