"""Screened repulsion of nuclei: a wall at distances shorter than those of any training data."""

import torch
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.nn import envelope
from phicalc.units import COULOMB_CONSTANT

#: The universal screening function: factors, and exponents in units of the screening length.
_FACTORS = (0.18175, 0.50986, 0.28022, 0.02817)
_EXPONENTS = (3.19980, 0.94229, 0.40290, 0.20162)
#: Screening length in Å, a power of the atomic numbers below.
_LENGTH, _POWER = 0.46850, 0.23


class ScreenedRepulsion(nn.Module):
    """``E = ½ Σ k_e Z_i Z_j/r · φ(r/a) · u(r/r_ij)`` with the universal screening function φ.

    The envelope u takes it to zero (C²) at r_ij, the sum of both covalent radii or the cutoff:
    bonds hardly feel it, closer contacts meet a wall.

    Parameters
    ----------
    elements
        Chemical symbols of the potential.
    cutoff
        Longest edge in Å.

    References
    ----------
    Ziegler, Biersack & Littmark, The Stopping and Range of Ions in Solids (1985).
    """

    numbers: Tensor
    radii: Tensor

    def __init__(self, elements: tuple[str, ...], cutoff: float):
        super().__init__()
        numbers = torch.tensor([atomic_numbers[symbol] for symbol in elements])
        self.cutoff = cutoff
        self.register_buffer("numbers", numbers, persistent=False)
        radii = torch.as_tensor(covalent_radii)[numbers]
        self.register_buffer("radii", radii, persistent=False)

    def forward(
        self, element: Int64[Tensor, " n_atoms"], graph: AtomicGraph
    ) -> Float64[Tensor, " n_atoms"]:
        """Return the energy of each atom in eV, half of that of its pairs."""
        first, second = graph.edge_index
        length = edge_vectors(graph).norm(dim=1)
        charge, radius = self.numbers[element].double(), self.radii[element].double()
        power = charge**_POWER
        scaled = length / _LENGTH * (power[first] + power[second])
        screening = sum(
            factor * torch.exp(-exponent * scaled)
            for factor, exponent in zip(_FACTORS, _EXPONENTS, strict=True)
        )
        end = (radius[first] + radius[second]).clamp(max=self.cutoff)
        strength = 0.5 * COULOMB_CONSTANT * charge[first] * charge[second]
        energies = strength / length * screening * envelope(length / end)
        return torch.zeros_like(charge).index_add(0, first, energies)
