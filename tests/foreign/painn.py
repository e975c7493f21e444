"""PaiNN, as somebody outside phicalc might write it: from the paper, on the backbone protocol.

Each atom has F scalars s and F vectors v. With W linear functions of a radial basis times a cutoff,
φ and a small networks, and ∘ the product channel by channel, a layer is the message

    Δs_i = Σ_j φ_s(s_j) ∘ W_s(r_ij)
    Δv_i = Σ_j v_j ∘ φ_vv(s_j) ∘ W_vv(r_ij) + Σ_j φ_vs(s_j) ∘ W_vs(r_ij) ⊗ r_ij/|r_ij|

and then, with U and V linear maps of the channels of v, the update

    Δs_i = a_ss(s_i, |V v_i|) + a_sv(s_i, |V v_i|) ∘ ⟨U v_i, V v_i⟩
    Δv_i = a_vv(s_i, |V v_i|) ∘ U v_i

(Schütt, Unke & Gastegger, ICML 2021, arXiv:2102.03150.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phicalc.graph import AtomicGraph, edge_vectors


@dataclass(frozen=True)
class PaiNNSettings:
    """Hyper-parameters."""

    features: int = 8
    layers: int = 2
    radial_basis: int = 6

    def __post_init__(self) -> None:
        if min(self.features, self.layers, self.radial_basis) < 1:
            raise ValueError("features, layers and radial_basis must be at least 1")


class Layer(nn.Module):
    """One message and one update."""

    def __init__(self, features: int, n_basis: int):
        super().__init__()
        self.phi = network(features, features, 3 * features)
        self.filter = nn.Linear(n_basis, 3 * features)
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.a = network(2 * features, features, 3 * features)

    def forward(self, s, v, basis, unit, neighbor, edge_of_slot, norm):
        weights = self.phi(s).index_select(0, neighbor) * self.filter(basis[0]) * basis[1]
        s_part, vv, vs = weights.chunk(3, dim=1)
        incoming = v.index_select(0, neighbor) * vv[:, None] + vs[:, None] * unit[:, :, None]
        s = s + gathered(s_part, edge_of_slot) * norm
        v = v + gathered(incoming, edge_of_slot) * norm
        first, second = self.mix(v).chunk(2, dim=2)
        length = (second.square().sum(1) + 1e-8).sqrt()
        ss, sv, vv = self.a(torch.cat([s, length], dim=1)).chunk(3, dim=1)
        return s + ss + sv * (first * second).sum(1), v + vv[:, None] * first


class PaiNN(nn.Module):
    """The network; its features are the scalars of the last layer."""

    Settings = PaiNNSettings

    def __init__(self, settings: PaiNNSettings, cutoff: float, neighbors: float, vectors: bool):
        super().__init__()
        width = settings.features
        self.n_inputs = self.n_features = width
        self.cutoff, self.norm = cutoff, 1 / math.sqrt(neighbors)
        frequencies = math.pi / cutoff * torch.arange(1, settings.radial_basis + 1)
        self.register_buffer("frequencies", frequencies.double(), persistent=False)
        self.layers = nn.ModuleList(
            Layer(width, settings.radial_basis) for _ in range(settings.layers)
        )
        self.vector = nn.Linear(width, 1, bias=False) if vectors else None

    @classmethod
    def input_width(cls, settings: PaiNNSettings) -> int:
        return settings.features

    @classmethod
    def from_settings(cls, settings, *, elements, cutoff, average_neighbors, vectors=False):
        return cls(settings, cutoff, average_neighbors, vectors)

    def forward(self, embedding: Tensor, element: Tensor, graph: AtomicGraph) -> Tensor:
        vectors, neighbor = edge_vectors(graph), graph.edge_index[1]
        return self.propagate(embedding, element, vectors, neighbor, graph.edge_of_slot)

    def propagate(self, embedding, element, vectors, neighbor, edge_of_slot) -> Tensor:
        lengths = vectors.norm(dim=1, keepdim=True)
        sines = (self.frequencies * lengths).sin() / lengths
        fade = 0.5 * ((math.pi / self.cutoff * lengths).cos() + 1)
        basis = sines.to(embedding), fade.to(embedding)
        unit = (vectors / lengths).to(embedding)
        s, v = embedding, embedding[:, None, :] * embedding.new_zeros(3, 1)
        for layer in self.layers:
            s, v = layer(s, v, basis, unit, neighbor, edge_of_slot, self.norm)
        return s if self.vector is None else torch.cat([s, self.vector(v).squeeze(2)], dim=1)


def network(n_in: int, hidden: int, n_out: int) -> nn.Module:
    """Two linear maps with SiLU between them."""
    return nn.Sequential(nn.Linear(n_in, hidden), nn.SiLU(), nn.Linear(hidden, n_out))


def gathered(of_edges: Tensor, edge_of_slot: Tensor) -> Tensor:
    """Sum over the edges of each atom; the number of edges stands for an empty slot."""
    padded = torch.cat([of_edges, of_edges.new_zeros(1, *of_edges.shape[1:])])
    rows = padded.index_select(0, edge_of_slot.reshape(-1))
    return rows.reshape(*edge_of_slot.shape, *of_edges.shape[1:]).sum(1)
