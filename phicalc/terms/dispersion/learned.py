"""Dispersion with coefficients that are read from the features of each atom."""

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.graph import AtomicGraph
from phicalc.nn import Constants
from phicalc.terms.dispersion.free_atoms import free_atom_coefficient
from phicalc.terms.dispersion.lattice_sum import DispersionSum
from phicalc.terms.dispersion.plan import plan_dispersion

#: Bounds of a coefficient in units of that of the free atom: of cations, and of soft anions.
LEAST, MOST = 1e-3, 8.0


class LearnedDispersion(nn.Module):
    """``E = −½ Σ √(C_i C_j) f(r_ij)/r_ij⁶`` over all pairs and images, with learned C_i.

    ``C_i = C_Z exp(bounded w·h_i)``: those of free atoms before training. The damping f is zero up
    to half the cutoff and 1 beyond it. What the network sees it learns; the term adds what it
    cannot see.

    Parameters
    ----------
    elements
        Chemical symbols of the potential.
    n_features
        Width of the node features.
    cutoff
        Longest edge in Å.

    Raises
    ------
    ValueError
        For elements without a known coefficient.
    """

    def __init__(self, elements: tuple[str, ...], n_features: int, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.free = Constants([free_atom_coefficient(symbol) for symbol in elements])
        self.readout = nn.Linear(n_features, 1, bias=False)
        self.offset = nn.Parameter(torch.zeros(len(elements)))
        nn.init.zeros_(self.readout.weight)

    def prepare(
        self,
        graph: AtomicGraph,
        element: Int64[Tensor, " n_atoms"],
        force_accuracy: float,
        mesh_above: int,
    ) -> AtomicGraph:
        """Return `graph` with the plan of its dispersion sums; see `plan_dispersion`."""
        free = self.free(element)
        return plan_dispersion(graph, self.cutoff, free, force_accuracy, mesh_above)

    def coefficients(
        self, features: Float[Tensor, "n_atoms n_features"], element: Int64[Tensor, " n_atoms"]
    ) -> Float64[Tensor, " n_atoms"]:
        """Dispersion coefficient C6 of each atom in eV Å⁶."""
        raw = (self.readout(features).squeeze(1) + self.offset[element]).double()
        low, high = math.log(LEAST), math.log(MOST)
        share = torch.sigmoid(raw + math.log(-low / high))  # 0 is -low / (high - low) of the way
        return self.free(element) * torch.exp(low + (high - low) * share)

    def forward(
        self,
        features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float64[Tensor, " n_atoms"]:
        """Return the energy of each atom in eV; only sums over structures have derivatives."""
        root = self.coefficients(features, element).sqrt()
        return DispersionSum(graph, self.cutoff).atomic_energies(root)
