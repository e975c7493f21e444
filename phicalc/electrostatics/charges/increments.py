"""Bond charge increments: what has flowed along links before any field drives charge."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.bounded import bounded
from phicalc.electrostatics.charges.elements import electronegativity
from phicalc.electrostatics.charges.links import Links
from phicalc.electrostatics.charges.softness import Softness
from phicalc.electrostatics.charges.transfer import Network
from phicalc.electrostatics.head import Surroundings
from phicalc.graph import AtomicGraph

#: Largest conductance of a link in e²/V.
_LARGEST = 0.5


class Increments(NamedTuple):
    """Flows ``p_ij = −s_ij (v_i − v_j)`` along links, all of them functions of the surroundings."""

    network: Network
    """The links, whose softness s is a conductance only: no energy belongs to it."""
    vectors: Float64[Tensor, "n_links 3"]
    """Of the links, in Å."""
    potential: Float64[Tensor, " n_atoms"]
    """v_i in V."""

    def added_to(self, charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return charges in e after the flows; each connected part keeps its sum."""
        return charges - self.network.drained(self.potential)

    def dipoles(self) -> Float64[Tensor, "n_atoms 3"]:
        """Return the dipoles of the flows in e·Å, shared out among the atoms."""
        return self.network.dipoles(self.potential, self.vectors)


class BondIncrements(nn.Module):
    """Node features → `Increments`; ``v_i = χ_Z + Δ tanh(w·h_i/Δ)``.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    width
        Δ in V.
    """

    def __init__(self, surroundings: Surroundings, width: float):
        super().__init__()
        self.width = width
        self.conductance = Softness(surroundings, _LARGEST)
        self.readout = nn.Linear(surroundings.n_features, 1, bias=False)
        self.electronegativity = nn.Parameter(
            torch.tensor([electronegativity(symbol) for symbol in surroundings.elements])
        )

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        links: Links,
    ) -> Increments:
        """Return the flows of a batch."""
        raw = self.readout(node_features).squeeze(1).double()
        v = bounded(raw, self.width) + self.electronegativity[element].double()
        return Increments(Network(self.conductance(node_features, graph, links)), links.vectors, v)
