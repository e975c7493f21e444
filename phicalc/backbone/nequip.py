"""NequIP-type backbone: equivariant message passing with an optional product at the nodes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from phicalc.backbone.products import NodeProduct
from phicalc.backbone.tables import RadialTable
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.nn import (
    MLP,
    ElementLinear,
    EquivariantLinear,
    Gate,
    Linear,
    RadialBasis,
    block,
    coupling,
    couplings,
    spherical_harmonics,
)
from phicalc.schema import AtLeast, Between, checked, settings

#: Root mean square of the aggregated messages, and of what enters each gate, before training.
DENSITY, UPDATE = 0.5, 0.5


@settings
@dataclass(frozen=True)
class NequIPSettings:
    """Hyper-parameters of `NequIP`: what a configuration says beside elements and cutoff."""

    layers: Annotated[int, AtLeast(1)] = 2
    """Number of interactions; the features have ``layers · channels`` columns."""
    channels: Annotated[int, AtLeast(1)] = 64
    edge_channels: Annotated[int, AtLeast(1)] | None = None
    """Channels of the messages between atoms; by default `channels`. Fewer are faster."""
    l_max: Annotated[int, Between(0, 3, "[]")] = 2
    """Highest degree inside a layer, 0 to 3."""
    hidden_l_max: Annotated[int, AtLeast(0)] = 0
    """Highest degree passed between layers, 0 to `l_max`."""
    correlation: Annotated[int, Between(1, 3, "[]")] = 3
    """Body order ν of the product at the nodes: 1 (none), 2 or 3."""
    radial_basis: Annotated[int, AtLeast(1)] = 8
    """Number of Bessel functions."""
    gate: bool = True
    """Whether a layer ends with a non-linearity; without, the products at the nodes are the only
    one (as in MACE)."""

    def __post_init__(self) -> None:
        """Check the fields, and that the features between layers are among those inside."""
        checked(self)
        if self.hidden_l_max > self.l_max:
            raise ValueError(
                f"hidden_l_max must be 0 to l_max={self.l_max}, got {self.hidden_l_max}"
            )


class EdgeFeatures(NamedTuple):
    """What the network sees of the edges, as a padded table for each centre; zeros are padding."""

    neighbor: Int64[Tensor, "n_atoms n_slots"]
    harmonics: Float[Tensor, "n_atoms n_slots components"]
    lengths: Float64[Tensor, "n_atoms n_slots"]
    """In Å; for table look-up."""
    radial: Float[Tensor, "n_atoms n_slots n_basis"]


def edge_features(
    vectors: Float64[Tensor, "n_edges 3"],
    neighbor: Int64[Tensor, " n_edges"],
    edge_of_slot: Int64[Tensor, "n_atoms n_slots"],
    basis: RadialBasis,
    l_max: int,
) -> EdgeFeatures:
    """Directions as spherical harmonics and lengths in a radial basis, in the network's dtype."""
    lengths = vectors.norm(dim=1)
    dtype = basis.frequencies.dtype
    harmonics = spherical_harmonics((vectors / lengths[:, None]).to(dtype), l_max)
    columns = (neighbor, harmonics, lengths, basis(lengths.to(dtype)))
    return EdgeFeatures(*(_to_slots(column, edge_of_slot) for column in columns))


def _to_slots(
    values: Shaped[Tensor, "n_edges ..."], edge_of_slot: Int64[Tensor, "n_atoms n_slots"]
) -> Shaped[Tensor, "n_atoms n_slots ..."]:
    """Lay what belongs to edges out as a table, zero in empty slots."""
    padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
    chosen = padded.index_select(0, edge_of_slot.reshape(-1))
    return chosen.reshape(*edge_of_slot.shape, *values.shape[1:])


class Convolution(nn.Module):
    """Sends ``R(r) · (Y(r̂) ⊗ h_j)`` along every edge and sums at the centre.

    The sum over neighbours is a matrix product for each centre, and harmonics are coupled to
    features after it: nothing of the size of edges times components times channels is ever made.

    Parameters
    ----------
    l_in, l_max
        Highest degree of the features, and of harmonics and messages.
    n_in, channels, n_basis
        Channels of the features and of the messages, functions of the radial basis.
    average_neighbors
        Mean number of edges per atom; half of it divides the sum.
    """

    def __init__(
        self,
        l_in: int,
        l_max: int,
        n_in: int,
        channels: int,
        n_basis: int,
        average_neighbors: float,
    ):
        super().__init__()
        self.l_max, self.channels = l_max, channels
        self.paths = couplings(l_in, l_max, l_max)
        self.linear = EquivariantLinear(l_in, n_in, channels)
        self.radial = MLP(n_basis, 32, len(self.paths) * channels)
        self.table: RadialTable | None = None  # stands in for `radial`, see `specialize`
        # Neighbours add up coherently in l = 0, and the envelope hides about half of them.
        self.scale = 2 / average_neighbors
        for l1, l2, l3 in self.paths:
            table = torch.from_numpy(coupling(l1, l2, l3))
            self.register_buffer(f"coupling_{l1}{l2}{l3}", table, persistent=False)

    def forward(
        self, features: Float[Tensor, "n m n_in"], edges: EdgeFeatures
    ) -> Float[Tensor, "n m_out c"]:
        """Aggregate the messages of all neighbours."""
        sent = self.linear(features)
        neighbors = sent.index_select(0, edges.neighbor.reshape(-1))
        neighbors = neighbors.reshape(*edges.neighbor.shape, *sent.shape[1:])  # (n, slots, m, c)
        radial = self.table(edges.lengths) if self.table else self.radial(edges.radial)
        radial = radial.unflatten(2, (len(self.paths), self.channels))
        messages = [
            self._message(neighbors, radial, edges, degree) for degree in range(self.l_max + 1)
        ]
        return self.scale * torch.cat(messages, dim=1)

    def _message(
        self, neighbors: Tensor, radial: Tensor, edges: EdgeFeatures, degree: int
    ) -> Float[Tensor, "n m c"]:
        """Sum of the messages of one degree, over all paths that lead to it."""
        terms = []
        for path, (l1, l2, l3) in enumerate(self.paths):
            if l3 != degree:
                continue
            weighted = neighbors[:, :, block(l1)] * radial[:, :, path, None]
            direction = edges.harmonics[:, :, block(l2)]
            if l2 == 0:  # products with one row are slow
                total = (direction * weighted.flatten(2)).sum(1, keepdim=True)
            else:
                total = direction.transpose(1, 2) @ weighted.flatten(2)  # (n, 2l2+1, (2l1+1) c)
            if l1 == 0:  # the coupling is the identity
                terms.append(total)
            else:
                table = getattr(self, f"coupling_{l1}{l2}{l3}").to(direction)
                pairs = total.unflatten(2, (2 * l1 + 1, self.channels))
                terms.append(torch.einsum("nbac,abk->nkc", pairs, table))
        return torch.stack(terms).sum(0) / math.sqrt(len(terms))


class Interaction(nn.Module):
    """One layer: convolution, product at the nodes, gate, and per-element self-connection.

    Without `gated` the product is the only non-linearity, as in MACE.
    """

    def __init__(
        self,
        l_in: int,
        l_max: int,
        l_out: int,
        channels: int,
        edge_channels: int,
        n_basis: int,
        n_elements: int,
        correlation: int,
        average_neighbors: float,
        gated: bool,
    ):
        super().__init__()
        self.missing = (l_out + 1) ** 2 - (l_in + 1) ** 2
        self.convolution = Convolution(
            l_in, l_max, channels, edge_channels, n_basis, average_neighbors
        )
        self.mix = EquivariantLinear(l_max, edge_channels, channels)
        self.product = NodeProduct(l_max, l_out, correlation, channels, n_elements)
        self.linear = EquivariantLinear(l_out, channels, channels)
        self.gate = Gate(l_out, channels) if gated else nn.Identity()
        self.self_connection = ElementLinear(min(l_in, l_out), channels, channels, n_elements)

    def forward(
        self,
        features: Float[Tensor, "n m c"],
        element: Int64[Tensor, " n"],
        edges: EdgeFeatures,
    ) -> Float[Tensor, "n m_out c"]:
        """Update the features of every atom."""
        density = self.mix(self.convolution(features, edges))
        update = self.gate(self.linear(self.product(density, element)))
        kept = pad(self.self_connection(features, element), (0, 0, 0, max(self.missing, 0)))
        return (kept + update) / math.sqrt(2)


class NequIP(nn.Module):
    """Stack of interactions; returns the scalars of all layers as invariant node features.

    With `vectors`, the features of degree 1 of the last layer are read out as one vector for each
    atom, in the last three columns of what is returned.

    Parameters
    ----------
    n_elements, layers, channels
        Sizes; the node features have ``layers · channels`` columns.
    edge_channels
        Channels of the messages between atoms, where most of the time goes.
    l_max
        Highest degree inside a layer (harmonics and aggregated messages).
    hidden_l_max
        Highest degree passed between layers; 0 keeps only scalars.
    correlation
        Body order ν of the product at the nodes: 1 (none, as in NequIP), 2 or 3.
    radial_basis
        Number of Bessel functions.
    cutoff
        Cutoff in Å.
    average_neighbors
        Mean number of neighbours within the cutoff.
    gated
        Whether each layer ends with a non-linearity.
    vectors
        Whether to return a vector for each atom as well.

    References
    ----------
    Batzner et al., Nat. Commun. 13, 2453 (2022); the product follows Batatia et al.,
    NeurIPS 2022 (arXiv:2206.07697).
    """

    Settings: ClassVar[type[NequIPSettings]] = NequIPSettings

    def __init__(
        self,
        *,
        n_elements: int,
        layers: int,
        channels: int,
        edge_channels: int,
        l_max: int,
        hidden_l_max: int,
        correlation: int,
        radial_basis: int,
        cutoff: float,
        average_neighbors: float,
        gated: bool = True,
        vectors: bool = False,
    ):
        super().__init__()
        self.l_max = l_max
        self.n_last, self.n_features = channels, layers * channels
        self.n_columns = self.n_features + (3 if vectors else 0)
        self.basis = RadialBasis(radial_basis, cutoff)
        inputs = [0] + [hidden_l_max] * (layers - 1)
        outputs = [hidden_l_max] * (layers - 1) + [1 if vectors else 0]
        self.interactions = nn.ModuleList(
            Interaction(
                l_in, l_max, l_out, channels, edge_channels, radial_basis, n_elements,
                correlation, average_neighbors, gated,
            )
            for l_in, l_out in zip(inputs, outputs, strict=True)
        )  # fmt: skip
        self.vector = Linear(channels, 1, gain=0.1) if vectors else None

    @classmethod
    def input_width(cls, settings: NequIPSettings) -> int:
        """Columns of the embedding: as many as all features have."""
        return settings.channels

    @classmethod
    def from_settings(
        cls,
        settings: NequIPSettings,
        *,
        n_elements: int,
        cutoff: float,
        average_neighbors: float,
        vectors: bool = False,
    ) -> "NequIP":
        """Make a network with random weights; see `phicalc.backbone.protocol.Backbone`.

        Raises
        ------
        ValueError
            If vectors are asked of a network of scalars (``l_max: 0``).
        """
        if vectors and settings.l_max < 1:
            raise ValueError("vectors of the atoms need l_max of at least 1, got l_max=0")
        return cls(
            n_elements=n_elements,
            layers=settings.layers,
            channels=settings.channels,
            edge_channels=settings.edge_channels or settings.channels,
            l_max=settings.l_max,
            hidden_l_max=settings.hidden_l_max,
            correlation=settings.correlation,
            radial_basis=settings.radial_basis,
            cutoff=cutoff,
            average_neighbors=average_neighbors,
            gated=settings.gate,
            vectors=vectors,
        )

    def standardized_maps(self) -> Iterator[tuple[EquivariantLinear, float]]:
        """Yield the maps that follow each sum over neighbours and each product, in order."""
        for interaction in self.interactions:
            assert isinstance(interaction, Interaction)
            yield interaction.mix, DENSITY
            yield interaction.linear, UPDATE

    def specialize(self) -> None:
        """Switch to operations that compile well: unrolled products, tabulated radial functions.

        Tables are for single precision only.
        """
        for interaction in self.interactions:
            assert isinstance(interaction, Interaction)
            interaction.product.unroll()
            convolution = interaction.convolution
            if self.basis.frequencies.dtype == torch.float32:
                convolution.table = RadialTable(self.basis, convolution.radial)

    def forward(
        self,
        embedding: Float[Tensor, "n_atoms channels"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms n_columns"]:
        """Turn initial scalars of the atoms into invariant features of their surroundings."""
        assert graph.edge_of_slot is not None
        return self.propagate(
            embedding, element, edge_vectors(graph), graph.edge_index[1], graph.edge_of_slot
        )

    def propagate(
        self,
        embedding: Float[Tensor, "n_atoms channels"],
        element: Int64[Tensor, " n_atoms"],
        vectors: Float64[Tensor, "n_edges 3"],
        neighbor: Int64[Tensor, " n_edges"],
        edge_of_slot: Int64[Tensor, "n_atoms n_slots"],
    ) -> Float[Tensor, "n_atoms n_columns"]:
        """Do the same from the vectors of the edges: all that the network sees of a structure."""
        edges = edge_features(vectors, neighbor, edge_of_slot, self.basis, self.l_max)
        features = embedding[:, None, :]
        scalars = []
        for interaction in self.interactions:
            features = interaction(features, element, edges)
            scalars.append(features[:, 0])
        if self.vector is not None:
            y, z, x = self.vector(features[:, block(1)]).squeeze(2).unbind(1)
            scalars.append(torch.stack([x, y, z], dim=1))
        return torch.cat(scalars, dim=1)
