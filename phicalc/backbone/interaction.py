"""A layer of equivariant message passing: convolution, product at the nodes, gate."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from phicalc.backbone.native import convolve, have_kernel
from phicalc.backbone.products import NodeProduct
from phicalc.backbone.tables import RadialTable
from phicalc.nn import (
    MLP,
    ElementLinear,
    EquivariantLinear,
    Gate,
    RadialBasis,
    block,
    coupling,
    couplings,
    degrees,
    spherical_harmonics,
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


def saturated(density: Float[Tensor, "n m c"], limit: float | None) -> Float[Tensor, "n m c"]:
    """Return features whose root mean square over each atom stays below `limit`."""
    if limit is None:
        return density
    square = density.square().mean(dim=(1, 2), keepdim=True)
    return density / torch.sqrt(1 + square / limit**2)


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

    norms: Tensor

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
        self.native = False  # whether to sum natively where that is possible
        # Neighbours add up coherently in l = 0, and the envelope hides about half of them.
        paths_to = [sum(p[2] == degree for p in self.paths) for degree in degrees(l_max)]
        norms = [[2 / average_neighbors / math.sqrt(n)] for n in paths_to]
        self.register_buffer("norms", torch.tensor(norms, dtype=torch.float64), persistent=False)
        for l1, l2, l3 in self.paths:
            table = torch.from_numpy(coupling(l1, l2, l3))
            self.register_buffer(f"coupling_{l1}{l2}{l3}", table, persistent=False)

    def forward(
        self, features: Float[Tensor, "n m n_in"], edges: EdgeFeatures
    ) -> Float[Tensor, "n m_out c"]:
        """Aggregate the messages of all neighbours."""
        sent = self.linear(features)
        radial = self.table(edges.lengths) if self.table else self.radial(edges.radial)
        if self.native and have_kernel(sent, self.channels):
            summed = convolve(sent, edges.neighbor, edges.harmonics, radial)
        else:
            summed = self._summed(sent, edges, radial)
        return self.norms.to(summed) * summed

    def _summed(
        self,
        sent: Float[Tensor, "n m c"],
        edges: EdgeFeatures,
        radial: Float[Tensor, "n n_slots columns"],
    ) -> Float[Tensor, "n m_out c"]:
        """Sum of the messages of all degrees."""
        neighbors = sent.index_select(0, edges.neighbor.reshape(-1))
        neighbors = neighbors.reshape(*edges.neighbor.shape, *sent.shape[1:])  # (n, slots, m, c)
        weights = radial.unflatten(2, (len(self.paths), self.channels))
        messages = [
            self._message(neighbors, weights, edges, degree) for degree in range(self.l_max + 1)
        ]
        return torch.cat(messages, dim=1)

    def _message(
        self,
        neighbors: Float[Tensor, "n n_slots m_in c"],
        radial: Float[Tensor, "n n_slots n_paths c"],
        edges: EdgeFeatures,
        degree: int,
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
        return torch.stack(terms).sum(0)


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
        density_limit: float | None = None,
    ):
        super().__init__()
        self.density_limit = density_limit
        self.missing = (l_out + 1) ** 2 - (l_in + 1) ** 2
        self.convolution: nn.Module = Convolution(
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
        density = saturated(self.mix(self.convolution(features, edges)), self.density_limit)
        update = self.gate(self.linear(self.product(density, element)))
        kept = pad(self.self_connection(features, element), (0, 0, 0, max(self.missing, 0)))
        return (kept + update) / math.sqrt(2)
