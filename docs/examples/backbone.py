"""A backbone in the manner of SchNet: messages filtered by a network of the distance."""

from dataclasses import dataclass

import torch
from torch import nn

from phicalc.graph import edge_vectors


@dataclass(frozen=True)
class SmallNetSettings:
    width: int = 16
    layers: int = 2


class SmallNet(nn.Module):
    Settings = SmallNetSettings

    def __init__(self, width, layers, cutoff, neighbors):
        super().__init__()
        self.n_features, self.cutoff, self.scale = width, cutoff, neighbors**-0.5
        self.filters = nn.ModuleList(nn.Linear(8, width, bias=False) for _ in range(layers))
        self.updates = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    @classmethod
    def input_width(cls, settings):
        return settings.width

    @classmethod
    def from_settings(cls, settings, *, elements, cutoff, average_neighbors, vectors=False):
        return cls(settings.width, settings.layers, cutoff, average_neighbors)

    def forward(self, h, element, graph):  # h: one row of scalars for each atom
        (center, neighbor), length = graph.edge_index, edge_vectors(graph).norm(dim=1)[:, None]
        waves = torch.arange(1, 9, dtype=length.dtype, device=length.device) * torch.pi
        fade = (0.5 * (torch.cos(torch.pi * length / self.cutoff) + 1)).square()  # smooth
        basis = (fade * torch.sin(waves * length / self.cutoff) / length).to(h)
        for filtered, update in zip(self.filters, self.updates, strict=True):
            messages = filtered(basis) * h[neighbor]
            gathered = self.scale * torch.zeros_like(h).index_add(0, center, messages)
            h = h + update(nn.functional.silu(gathered))
        return h
