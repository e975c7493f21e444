"""Formal charges: what the atoms carry before any charge flows along links."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.bonds import BondFeatures
from phicalc.electrostatics.charges.hydrogens import BondedHydrogens
from phicalc.electrostatics.charges.links import Links
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.head import Formal, Surroundings
from phicalc.graph import AtomicGraph
from phicalc.nn import MLP

#: States of an atom are the integers from −`LARGEST` to `LARGEST` e.
LARGEST = 4
#: By how much training starts with a state less likely than one that is 1 e nearer to zero (ln).
_RESERVE = 1.0
#: Charges raise probabilities to this power: states that the fit makes 99 % certain are certain to
#: six digits in the charges.
_MARGIN = 3.0
#: How much less likely (ln) a bonded hydrogen atom has a charge of 1 e than none.
_NEUTRAL = 15.0
#: Hidden width of the readout, and a factor of its output, with which states become certain sooner.
_WIDTH, _GAIN = 64, 3.0
#: Standard deviation of the weights of the readout at first: states of elements.
_START = 0.01
#: Smallest variance in e² by which charges are shared out: certain states may have a wrong sum.
_DOUBT = 1e-3


class FormalCharges(nn.Module):
    """``z_i = f_i + σ_i² (Q − Σf)/Σσ²``, sums over the structure or the fragment of the atom.

    Each atom is in one of the states k = −4 … 4 e with probability ``p_k ∝ exp(θ_Zk + v_k(b_i))``,
    b_i of the bonds around it, and f_i and σ_i² are mean and variance of its state by probabilities
    ``∝ p_k³``. If atoms drew their states independently, z_i would be the means of those whose sum
    is Q (of Gaussians with these means and variances): what is missing goes to atoms that are not
    certain. Where states are certain, nothing is shared out, distant fragments have charges of
    their own, and formal charges stay the same when atoms move.

    Hydrogen bonded to another element is neutral, ``p_k ∝ exp(−15 |k|)``, and becomes an atom like
    the others as its bond breaks: the charge of ammonium is that of its nitrogen, and not a quarter
    at each of four atoms, which would never be certain.

    The weights are no parameters of the energy: they are fitted to the charges of molecules before
    training begins (`phicalc.training.states`), and then stay as they are.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    environment
        Whether they depend on the bonds around the atom, and not on its element only.
    """

    states: Tensor

    def __init__(self, surroundings: Surroundings, environment: bool):
        super().__init__()
        states = torch.arange(-LARGEST, LARGEST + 1)
        self.register_buffer("states", states.double(), persistent=False)
        start = -_RESERVE * states.abs().float()
        self.element = nn.Parameter(start.repeat(len(surroundings.elements), 1))
        self.hydrogens = BondedHydrogens(surroundings)
        self.bonds: BondFeatures | None = None
        if environment:
            self.bonds = BondFeatures(surroundings)
            self.readout = MLP(self.bonds.n_features, _WIDTH, len(states))
            for weight in self.readout[-1].parameters():
                nn.init.normal_(weight, std=_START)
        self.requires_grad_(False)

    def forward(
        self, element: Int64[Tensor, " n_atoms"], graph: AtomicGraph, links: Links
    ) -> Formal:
        """Return the charges in e."""
        logits = self._logits(element, links)
        return Formal(self._completed((_MARGIN * logits).softmax(1), graph), logits.softmax(1))

    def _logits(
        self, element: Int64[Tensor, " n_atoms"], links: Links
    ) -> Float64[Tensor, "n_atoms n_states"]:
        """Logarithms of the probabilities of states, but for a constant."""
        logits = self.element[element]
        if self.bonds is not None:
            logits = logits + _GAIN * self.readout(self.bonds(element, links))
            bonded = self.hydrogens.bonded(element, links).clamp(max=1)[:, None]
            logits = (1 - bonded) * logits - bonded * _NEUTRAL * self.states.abs()
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
