"""A head whose charges equalize their electronegativities, without Coulomb's law."""

from dataclasses import dataclass

from torch import nn

from phicalc.electrostatics import Electrostatics, Head
from phicalc.graph import mean_per_structure, sum_per_structure


@dataclass(frozen=True)
class EqualizedSettings:
    hardness: float = 5.0  # eV/e²


class Equalized(Head):
    Settings = EqualizedSettings
    is_stationary = True  # a trait: the energy is a minimum in the charges

    def __init__(self, n_features, hardness):
        super().__init__()
        self.readout, self.hardness = nn.Linear(n_features, 1, bias=False), hardness

    @classmethod
    def from_settings(cls, settings, surroundings):
        return cls(surroundings.n_features, settings.hardness)

    def forward(self, node_features, element, graph, derivatives=2):
        chi = self.readout(node_features).squeeze(1).double()
        atoms = sum_per_structure(chi.new_ones(chi.shape), graph)
        level = mean_per_structure(chi, graph) + self.hardness * graph.total_charge / atoms
        charges = (level[graph.batch] - chi) / self.hardness
        energies = chi * charges + 0.5 * self.hardness * charges.square()
        return Electrostatics(charges, (chi + self.hardness * charges).detach(), energies)
