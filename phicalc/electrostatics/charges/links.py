"""Links between atoms: where charge may flow."""

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.elements import covalent_radius
from phicalc.electrostatics.head import Surroundings
from phicalc.elements import is_metal
from phicalc.graph import AtomicGraph, edge_vectors, pair_vectors
from phicalc.nn import envelope, smooth_step

#: A bond is whole up to the first and broken beyond the second multiple of the sum of covalent
#: radii (beyond the end of links, if that is shorter; then whole up to the same fraction of it).
#: Formal charges must not change at distances that are common: vibrating bonds stay below this
#: window, and second neighbors, even in four- and five-membered rings, lie above it.
_WHOLE, _BROKEN = 1.2, 1.4


class Links(NamedTuple):
    """The links of a batch, each in both directions."""

    atoms: Int64[Tensor, "2 n_links"]
    """Which are linked."""
    vectors: Float64[Tensor, "n_links 3"]
    """From the first to the second, in Å."""
    lengths: Float64[Tensor, " n_links"]
    """In Å."""
    fading: Float64[Tensor, " n_links"]
    """From 1 for short links to 0 where they end, and between fragments."""
    bonding: Float64[Tensor, " n_links"]
    """1 for intact covalent bonds, falling to 0 for atoms that are not bonded.

    Metals form none: their ions approach and leave their neighbors without changing charge."""


class LinkFinder(nn.Module):
    """Finds the edges along which charge may flow, and how far each is from the end of a link.

    Links end, C² to zero, at the sum of both covalent radii times a factor, or at the cutoff.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    reach
        Longest link in sums of covalent radii.
    """

    radii: Tensor
    covalent: Tensor

    def __init__(self, surroundings: Surroundings, reach: float):
        super().__init__()
        self.cutoff, self.reach = surroundings.cutoff, reach
        radii = torch.tensor([covalent_radius(symbol) for symbol in surroundings.elements])
        self.register_buffer("radii", radii.double(), persistent=False)
        covalent = torch.tensor([not is_metal(symbol) for symbol in surroundings.elements])
        self.register_buffer("covalent", covalent, persistent=False)

    def chosen(
        self, graph: AtomicGraph, element: Int64[Tensor, " n_atoms"]
    ) -> Int64[Tensor, " n_links"]:
        """Return the numbers of the edges that are links."""
        lengths = edge_vectors(graph).norm(dim=1)
        return (lengths < self._ends(graph.edge_index, element)).nonzero().squeeze(1)

    def forward(self, graph: AtomicGraph, element: Int64[Tensor, " n_atoms"]) -> Links:
        """Return the links of a batch that has been prepared."""
        assert graph.links is not None
        index = graph.edge_index.index_select(1, graph.links)
        vectors = pair_vectors(graph, index, graph.edge_shifts.index_select(0, graph.links))
        lengths = vectors.norm(dim=1)
        ends, contact = self._ends(index, element), self._contact(index, element)
        fading = envelope(lengths / ends)
        bonding = _plateau(lengths / torch.minimum(_BROKEN * contact, ends))
        bonding = bonding * self.covalent[element][index].all(0)
        if graph.fragments is not None:
            first, second = graph.fragments.number[index]
            fading, bonding = fading * (first == second), bonding * (first == second)
        return Links(index, vectors, lengths, fading, bonding)

    def _ends(
        self, index: Int64[Tensor, "2 n_links"], element: Int64[Tensor, " n_atoms"]
    ) -> Float64[Tensor, " n_links"]:
        """Length in Å at which each link ends."""
        return (self.reach * self._contact(index, element)).clamp(max=self.cutoff)

    def _contact(
        self, index: Int64[Tensor, "2 n_links"], element: Int64[Tensor, " n_atoms"]
    ) -> Float64[Tensor, " n_links"]:
        """Sum of both covalent radii in Å."""
        first, second = self.radii.double()[element][index]
        return first + second


def _plateau(stretch: Float64[Tensor, " n_links"]) -> Float64[Tensor, " n_links"]:
    """From 1 for whole bonds, C² to 0 at the length at which they are broken, which is 1 here."""
    whole = _WHOLE / _BROKEN
    return 1 - smooth_step((stretch - whole) / (1 - whole))
