"""Formal charges: what the atoms carry before any charge flows along links."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.bounded import bounded
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.graph import AtomicGraph

#: Formal charges stay between −`LARGEST` and `LARGEST` e, before what is missing is shared out.
LARGEST = 4.0
#: Smallest weight of an atom in sharing out: the sum must hold however far features are from those
#: of training.
_SMALLEST_SHARE = 0.05


class Formal(NamedTuple):
    """Formal charges of the atoms of a batch."""

    charges: Float64[Tensor, " n_atoms"]
    """z_i in e; their sums are those that are asked for."""
    read: Float64[Tensor, " n_atoms"]
    """f_i in e, as they are read from each atom, before what is missing is shared out."""


class FormalCharges(nn.Module):
    """``z_i = f_i + w_i (Q − Σf)/Σw``, sums over the structure or the fragment of the atom.

    ``f_i = F tanh((θ_Z + v·h_i)/F)`` and ``w_i = softplus(η_Z + y·h_i)`` above a floor. Training
    that asks molecules for integer sums of f (``penalties.integer_fragments``) leaves nothing to be
    shared out, and distant fragments with charges of their own.

    Parameters
    ----------
    n_features
        Width of the node features.
    n_elements
        Elements of the model.
    environment
        Whether they depend on the environment of the atom, and not on its element only.
    """

    def __init__(self, n_features: int, n_elements: int, environment: bool):
        super().__init__()
        self.element = nn.Parameter(torch.zeros(n_elements, 2))
        self.readout: nn.Linear | None = None
        if environment:
            self.readout = nn.Linear(n_features, 2, bias=False)
            nn.init.normal_(self.readout.weight, std=0.1 / n_features**0.5)

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Formal:
        """Return the charges in e."""
        raw = self.element[element]
        if self.readout is not None:
            raw = raw + self.readout(node_features)
        read = bounded(raw[:, 0].double(), LARGEST)
        share = nn.functional.softplus(raw[:, 1].double()) + _SMALLEST_SHARE
        constraints = ChargeConstraints(graph)
        missing = constraints.net_charge - constraints.total(read)
        total = constraints.total(share)
        each = missing / torch.where(total > 0, total, 1.0)  # no sum is fixed beside a reservoir
        return Formal(read + share * constraints.at_atoms(each), read)
