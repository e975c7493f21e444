"""Electronegativity equalization without Coulomb interactions, as a head outside phicalc.

With χ_i = w·h_i of the features h_i and one hardness J, the charges q minimize

    E(q) = Σ_i (χ_i q_i + ½ J q_i²)    under    Σ_i q_i = Q,

so that q_i = (λ − χ_i)/J with the mean λ = (J Q + Σ_i χ_i)/N.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from phicalc.electrostatics.head import Electrostatics, Head
from phicalc.graph import AtomicGraph, mean_per_structure, sum_per_structure


@dataclass(frozen=True)
class EqualizationSettings:
    """Options of the head."""

    hardness: float = 5.0

    def __post_init__(self) -> None:
        if not self.hardness > 0:
            raise ValueError(f"hardness must be positive (eV/e²), got {self.hardness}")


class Equalization(Head):
    """The head."""

    Settings = EqualizationSettings
    is_stationary = True

    def __init__(self, n_features: int, hardness: float):
        super().__init__()
        self.electronegativity, self.hardness = nn.Linear(n_features, 1, bias=False), hardness

    @classmethod
    def from_settings(cls, settings, surroundings):
        return cls(surroundings.n_features, settings.hardness)

    def forward(
        self, node_features: Tensor, element: Tensor, graph: AtomicGraph, derivatives: int = 2
    ) -> Electrostatics:
        chi = self.electronegativity(node_features).squeeze(1).double()
        atoms = sum_per_structure(chi.new_ones(chi.shape), graph)
        level = mean_per_structure(chi, graph) + self.hardness * graph.total_charge / atoms
        charges = (level[graph.batch] - chi) / self.hardness
        energies = chi * charges + 0.5 * self.hardness * charges.square()
        return Electrostatics(charges, (chi + self.hardness * charges).detach(), energies)
