"""Formal charges: what the atoms carry before any charge flows along links."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.head import Formal
from phicalc.graph import AtomicGraph
from phicalc.nn import MLP

#: States of an atom are the integers from −`LARGEST` to `LARGEST` e.
LARGEST = 4
#: By how much training starts with a state less likely than one that is 1 e nearer to zero (ln).
_RESERVE = 1.0
#: Charges raise probabilities to this power: states that training makes 99 % certain are certain
#: to eight digits in the charges.
_MARGIN = 4.0
#: Hidden width of the readout, and a factor of its output, with which states become certain sooner.
_WIDTH, _GAIN = 64, 3.0
#: Share of the gradient of penalties that reaches the features.
_LEAK = 0.1
#: Smallest variance in e² by which charges are shared out: certain states may have a wrong sum.
_DOUBT = 1e-3


class FormalCharges(nn.Module):
    """``z_i = f_i + σ_i² (Q − Σf)/Σσ²``, sums over the structure or the fragment of the atom.

    Each atom is in one of the states k = −4 … 4 e with probability ``p_k ∝ exp(θ_Zk + v_k(h_i))``,
    and f_i and σ_i² are mean and variance of its state by probabilities ``∝ p_k⁴``. If atoms drew
    their states independently, z_i would be the means of those whose sum is Q (of Gaussians with
    these means and variances): what is missing goes to atoms that are not certain. Training that
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
        self.readout: MLP | None = None
        if environment:
            self.readout = MLP(n_features, _WIDTH, _WIDTH, len(states))
            for weight in self.readout[-1].parameters():  # states of elements at first
                nn.init.normal_(weight, std=0.02)

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Formal:
        """Return the charges in e.

        In training, probabilities pass little of their gradient on to the features, so that the
        penalty hardly trains these: features that tell ions apart describe energies poorly.
        """
        logits = self._logits(node_features, element)
        charges = self._completed((_MARGIN * logits).softmax(1), graph)
        if self.training:
            hardly = node_features.detach() + _LEAK * (node_features - node_features.detach())
            logits = self._logits(hardly, element)
        return Formal(charges, logits.softmax(1))

    def _logits(
        self, node_features: Float[Tensor, "n_atoms n_features"], element: Int64[Tensor, " n_atoms"]
    ) -> Float64[Tensor, "n_atoms n_states"]:
        """Logarithms of the probabilities of states, but for a constant."""
        logits = self.element[element]
        if self.readout is not None:
            logits = logits + _GAIN * self.readout(node_features)
        return logits.double()

    def _completed(
        self, probability: Float64[Tensor, "n_atoms n_states"], graph: AtomicGraph
    ) -> Float64[Tensor, " n_atoms"]:
        """Mean states in e, and what they lack of the sums that are asked for shared out."""
        states = self.states.double()
        mean = probability @ states
        share = probability @ states**2 - mean**2 + _DOUBT
        constraints = ChargeConstraints(graph)
        missing = constraints.net_charge - constraints.total(mean)
        total = constraints.total(share)
        each = missing / torch.where(total > 0, total, 1.0)  # no sum is fixed beside a reservoir
        return mean + share * constraints.at_atoms(each)
