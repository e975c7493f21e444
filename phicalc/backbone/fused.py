"""Radial functions and sum over neighbours as one native operation, for inference."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phicalc.backbone.interaction import Convolution, EdgeFeatures
from phicalc.backbone.native import convolve_lengths, have_kernel
from phicalc.backbone.tables import RadialTable


def can_be_fused(convolution: Convolution) -> bool:
    """Whether there is a native operation for a convolution with a radial table."""
    table = convolution.table
    return table is not None and have_kernel(table.coefficients, convolution.channels)


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
        sent = self.linear(features)
        return convolve_lengths(
            sent, edges.neighbor, edges.harmonics, edges.lengths, self.table, self.spacing
        )
