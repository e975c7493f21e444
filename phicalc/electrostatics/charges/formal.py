"""Formal charges: what the atoms carry before any charge flows along links."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.head import Formal
from phicalc.graph import AtomicGraph

#: States of an atom are the integers from −`LARGEST` to `LARGEST` e.
LARGEST = 4
#: By how much training starts with a state less likely than one that is 1 e nearer to zero (ln).
_RESERVE = 2.0
#: Smallest weight of an atom in sharing out: the sum must hold however far features are from those
#: of training.
_SMALLEST_SHARE = 0.05


class FormalCharges(nn.Module):
    """``z_i = f_i + w_i (Q − Σf)/Σw``, sums over the structure or the fragment of the atom.

    Each atom is in one of the states k = −4 … 4 e with probability ``p_k ∝ exp(θ_Zk + v_k·h_i)``,
    ``f_i = Σ k p_k`` is its mean, and ``w_i = softplus(η_Z + y·h_i)`` above a floor. Training that
    asks for certain states and integer charges of molecules (``penalties.integer_fragments``)
    leaves nothing to be shared out, and distant fragments with charges of their own. Where states
    are certain, formal charges stay the same when atoms move.

    Parameters
    ----------
    n_features
        Width of the node features.
    n_elements
        Elements of the model.
    environment
        Whether they depend on the environment of the atom, and not on its element only.
    """

    states: Tensor

    def __init__(self, n_features: int, n_elements: int, environment: bool):
        super().__init__()
        states = torch.arange(-LARGEST, LARGEST + 1)
        self.register_buffer("states", states.double(), persistent=False)
        self.element = nn.Parameter((-_RESERVE * states.abs().float()).repeat(n_elements, 1))
        self.share = nn.Parameter(torch.zeros(n_elements))
        self.readout: nn.Linear | None = None
        if environment:
            self.readout = nn.Linear(n_features, len(states) + 1, bias=False)
            nn.init.normal_(self.readout.weight, std=0.1 / n_features**0.5)

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Formal:
        """Return the charges in e."""
        logits, raw = self.element[element], self.share[element]
        if self.readout is not None:
            read = self.readout(node_features)
            logits, raw = logits + read[:, :-1], raw + read[:, -1]
        states = self.states.double()
        probability = logits.double().softmax(1)
        mean = probability @ states
        variance = probability @ states**2 - mean**2
        share = nn.functional.softplus(raw.double()) + _SMALLEST_SHARE
        return Formal(_completed(mean, share, graph), mean, variance)


def _completed(
    charges: Float64[Tensor, " n_atoms"], share: Float64[Tensor, " n_atoms"], graph: AtomicGraph
) -> Float64[Tensor, " n_atoms"]:
    """Share out what charges lack of the sums that are asked for."""
    constraints = ChargeConstraints(graph)
    missing = constraints.net_charge - constraints.total(charges)
    total = constraints.total(share)
    each = missing / torch.where(total > 0, total, 1.0)  # no sum is fixed beside a reservoir
    return charges + share * constraints.at_atoms(each)
