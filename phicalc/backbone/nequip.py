"""NequIP-type backbone: equivariant message passing with an optional product at the nodes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.backbone.fused import FusedConvolution, can_be_fused
from phicalc.backbone.interaction import Convolution, Interaction, edge_features
from phicalc.backbone.overlap import InnerEnvelope, NearestLengths
from phicalc.backbone.tables import RadialTable
from phicalc.elements import symbols_of_pair
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.nn import (
    EquivariantLinear,
    Linear,
    RadialBasis,
    block,
)
from phicalc.schema import AtLeast, Between, Positive, checked, settings

#: Root mean square of the aggregated messages, and of what enters each gate, before training.
DENSITY, UPDATE = 0.5, 0.5


@settings
@dataclass(frozen=True)
class NequIPSettings:
    """Hyper-parameters of `NequIP`: what a configuration says beside elements and cutoff.

    Raises
    ------
    ValueError
        For a number out of its range, and for `hidden_l_max` above `l_max`.
    """

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
    inner_envelope: bool = False
    """Whether messages fade out between 0.75 and 0.5 times the sum of both covalent radii. Below
    the distances of any training data only ``repulsion`` then remains."""
    nearest_distances: dict[str, Annotated[float, Positive]] | None = None
    """Smallest distance in Å of pairs of elements in the training data, such as ``H-O``: below it
    the network does not extrapolate. Training fills it in where `inner_envelope` is set."""
    density_limit: Annotated[float, Positive] | None = None
    """Root mean square at which the sum over neighbours saturates (0.5 before training), which
    bounds the energy of atoms that are crowded; by default it does not."""

    def __post_init__(self) -> None:
        """Check the fields, and that the features between layers are among those inside."""
        checked(self)
        if self.hidden_l_max > self.l_max:
            raise ValueError(
                f"hidden_l_max must be 0 to l_max={self.l_max}, got {self.hidden_l_max}"
            )
        for pair in self.nearest_distances or ():
            symbols_of_pair(pair)


class NequIP(nn.Module):
    """Stack of interactions; returns the scalars of all layers as invariant node features.

    With `vectors`, the features of degree 1 of the last layer are read out as one vector for each
    atom, in the last three columns of what is returned.

    Parameters
    ----------
    elements
        Chemical symbols.
    layers, channels
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
    inner_envelope, nearest_distances, density_limit
        See `NequIPSettings`.
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
        elements: tuple[str, ...],
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
        inner_envelope: bool = False,
        nearest_distances: Mapping[str, float] | None = None,
        density_limit: float | None = None,
        vectors: bool = False,
    ):
        super().__init__()
        self.l_max = l_max
        self.n_last, self.n_features = channels, layers * channels
        self.n_columns = self.n_features + (3 if vectors else 0)
        self.basis = RadialBasis(radial_basis, cutoff)
        self.nearest = NearestLengths(elements, nearest_distances) if nearest_distances else None
        self.inner = InnerEnvelope(elements) if inner_envelope else None
        inputs = [0] + [hidden_l_max] * (layers - 1)
        outputs = [hidden_l_max] * (layers - 1) + [1 if vectors else 0]
        self.interactions = nn.ModuleList(
            Interaction(
                l_in, l_max, l_out, channels, edge_channels, radial_basis, len(elements),
                correlation, average_neighbors, gated, density_limit,
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
        elements: tuple[str, ...],
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
            elements=elements,
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
            inner_envelope=settings.inner_envelope,
            nearest_distances=settings.nearest_distances,
            density_limit=settings.density_limit,
            vectors=vectors,
        )

    def standardized_maps(self) -> Iterator[tuple[EquivariantLinear, float]]:
        """Yield the maps that follow each sum over neighbours and each product, in order."""
        for interaction in self.interactions:
            assert isinstance(interaction, Interaction)
            yield interaction.mix, DENSITY
            yield interaction.linear, UPDATE

    def accelerate(self) -> None:
        """Sum over neighbours natively where this process can."""
        for _, convolution in self._convolutions():
            convolution.native = True

    def specialize(self) -> None:
        """Switch to operations that compile well: unrolled products, tabulated radial functions.

        Tables are for single precision only, and so are native sums over neighbours, where this
        process has them.
        """
        for interaction, convolution in self._convolutions():
            interaction.product.unroll()
            if self.basis.frequencies.dtype == torch.float32:
                convolution.table = RadialTable(self.basis, convolution.radial)
            if can_be_fused(convolution):
                interaction.convolution = FusedConvolution(convolution)

    def _convolutions(self) -> Iterator[tuple[Interaction, Convolution]]:
        """Yield the layers with their sums over neighbours, as they are in training."""
        for interaction in self.interactions:
            assert isinstance(interaction, Interaction)
            assert isinstance(interaction.convolution, Convolution)
            yield interaction, interaction.convolution

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
        if self.nearest is not None:
            edges = self.nearest(edges, element, self.basis)
        if self.inner is not None:
            edges = self.inner(edges, element)
        features = embedding[:, None, :]
        scalars = []
        for interaction in self.interactions:
            features = interaction(features, element, edges)
            scalars.append(features[:, 0])
        if self.vector is not None:
            y, z, x = self.vector(features[:, block(1)]).squeeze(2).unbind(1)
            scalars.append(torch.stack([x, y, z], dim=1))
        return torch.cat(scalars, dim=1)
