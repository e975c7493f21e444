"""Gaussian widths of the charges, fixed or trained within bounds."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from phicalc.nn import Constants

#: Trained widths stay between 1/`RANGE` and `RANGE` times what they start from.
RANGE = 2.0


class GaussianWidths(nn.Module):
    """Widths ``σ = σ⁰ · RANGE^tanh(θ)`` in Å, with θ = 0 at the start; or σ⁰ itself.

    Parameters
    ----------
    start
        σ⁰ in Å: one number per element, or one for all.
    trained
        Whether there is a θ.
    """

    raw: nn.Parameter | None

    def __init__(self, start: Sequence[float], trained: bool = False):
        super().__init__()
        self.start = Constants(start)
        self.register_parameter("raw", nn.Parameter(torch.zeros(len(start))) if trained else None)

    @property
    def trained(self) -> bool:
        """Whether training changes the widths."""
        return self.raw is not None

    def forward(self, element: Int64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return the current width of each atom in Å; float64 whatever the network is."""
        start = self._start_of(element)
        if self.raw is None:
            return start
        exponent = torch.tanh(self.raw.double()[self._index(element)])
        return start * torch.exp(math.log(RANGE) * exponent)  # the compiler knows no RANGE ** x

    def widest(self, element: Int64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return the width of each atom in Å that training cannot exceed."""
        start = self._start_of(element)
        return start if self.raw is None else RANGE * start

    def _start_of(self, element: Int64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        return self.start(self._index(element))

    def _index(self, element: Int64[Tensor, " n_atoms"]) -> Int64[Tensor, " n_atoms"]:
        return element if len(self.start.values) > 1 else torch.zeros_like(element)
