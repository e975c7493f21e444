r"""Formulae for Gaussian charges, without any sum. All in eV/e² with lengths in Å.

The charge density of atom *i* is ``q_i (2π σ_i²)^(-3/2) exp(-|r - r_i|²/2σ_i²)``; two of them
interact as ``k_e erf(r/√2γ)/r`` with ``γ² = σ_i² + σ_j²``. The Ewald split takes away what
Gaussians of width η = 1/(√2 α) would do, ``k_e erf(α r)/r``, and gives it back in reciprocal space;
α = 0 means no split, which is the open boundary. One set of formulae thus serves both.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.units import COULOMB_CONSTANT


def pair_interaction(
    distance: Float64[Tensor, " n"], width: Float64[Tensor, " n"], splitting: Float64[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    """Real-space interaction ``k_e [erf(r/√2γ) − erf(αr)]/r`` of unit charges (`width` is γ)."""
    smeared = torch.erfc(distance / (math.sqrt(2) * width))
    screened = torch.erfc(splitting * distance)
    return COULOMB_CONSTANT * (screened - smeared) / distance


def self_interaction(
    smearing: Float64[Tensor, " n"], splitting: Float64[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    """Interaction of a unit charge with itself, less its own screening cloud."""
    return COULOMB_CONSTANT * (1 / smearing - 2 * splitting) / math.sqrt(math.pi)


def reciprocal_interaction(
    k_squared: Float64[Tensor, "s n_k"],
    splitting: Float64[Tensor, " s"],
    volume: Float64[Tensor, " s"],
) -> Float64[Tensor, "s n_k"]:
    """Weight of each pair ±k, ``(8π k_e/V) exp(−k²/4α²)/k²``; zero for k = 0 (padding)."""
    present = k_squared > 0
    k_squared = torch.where(present, k_squared, 1.0)
    alpha = torch.where(splitting > 0, splitting, 1.0)[:, None]
    prefactor = 8 * math.pi * COULOMB_CONSTANT / volume[:, None]
    weight = prefactor * torch.exp(-k_squared / (4 * alpha**2)) / k_squared
    return torch.where(present, weight, 0.0)


def background_interaction(
    splitting: Float64[Tensor, " s"], volume: Float64[Tensor, " s"]
) -> tuple[Float64[Tensor, " s"], Float64[Tensor, " s"]]:
    """Uniform neutralising background of a periodic cell, for every pair i, j (itself included).

    Returns the coefficients (a, b) of ``a − b (σ_i² + σ_j²)`` with ``b = −2πk_e/V`` and
    ``a = b/(2α²)``: together ``−(2πk_e/V)(η² − γ_ij²)``. Without it the matrix would depend on α.
    Both are zero for open structures (α = 0).
    """
    periodic = splitting > 0
    alpha = torch.where(periodic, splitting, 1.0)
    strength = torch.where(periodic, -2 * math.pi * COULOMB_CONSTANT / volume, 0.0)
    return strength / (2 * alpha**2), strength
