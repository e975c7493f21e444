r"""Formulae for Gaussian charges, without any sum. All in eV/e² with lengths in Å.

The charge density of atom *i* is ``q_i (2π σ_i²)^(-3/2) exp(-|r - r_i|²/2σ_i²)``; two of them
interact as ``k_e erf(r/√2γ)/r`` with ``γ² = σ_i² + σ_j²``. The Ewald split takes away what
Gaussians of width η = 1/(√2 α) would do, ``k_e erf(α r)/r``, and gives it back in reciprocal space;
α = 0 means no split, which is the open boundary. One set of formulae thus serves both.
"""

import math
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.autograd import Function

from phicalc.units import COULOMB_CONSTANT


def pair_interaction(
    squared: Float64[Tensor, " n"],
    variance: Float64[Tensor, " n"],
    splitting: Float64[Tensor, "#n"],
) -> Float64[Tensor, " n"]:
    """Real-space interaction ``k_e [erf(r/√2γ) − erf(αr)]/r`` of unit charges.

    `squared` is r², `variance` is γ². Differentiable in both, as often as wanted.
    """
    decays = (torch.rsqrt(2 * variance), splitting)
    if torch.compiler.is_compiling():  # which fuses the plain formula and derives it by itself
        return COULOMB_CONSTANT * _split(squared.sqrt(), decays)
    return COULOMB_CONSTANT * _Screened.apply(squared, *decays, 0, None)


def _split(
    distance: Float64[Tensor, " n"], decays: tuple[Float64[Tensor, " n"], Float64[Tensor, "#n"]]
) -> Float64[Tensor, " n"]:
    """``[erf(ar) − erf(br)]/r``, where both are almost one."""
    a, b = decays
    return (torch.erfc(b * distance) - torch.erfc(a * distance)) / distance


class _Screened(Function):
    """``F_n(s) = (−2 d/ds)ⁿ {[erf(a√s) − erf(b√s)]/√s}``, each from the one before.

    ``F_n+1 = [(2n + 1) F_n − g_n]/s``,  ``g_n = 2/√π [a (2a²)ⁿ exp(−a²s) − b (2b²)ⁿ exp(−b²s)]``.

    A derivative costs two exponentials; autograd would go through square roots and quotients. That
    by the decay a is ``dF_n/da = g_n/a`` of the first term alone; b is a constant.
    """

    @staticmethod
    def forward(
        ctx: Any,
        s: Float64[Tensor, " n"],
        a: Float64[Tensor, " n"],
        b: Float64[Tensor, "#n"],
        n: int,
        previous: Float64[Tensor, " n"] | None,
    ) -> Float64[Tensor, " n"]:
        if previous is None:
            value = _split(s.sqrt(), (a, b))
        else:
            value = ((2 * n - 1) * previous - _gaussian(a, s, n) + _gaussian(b, s, n)) / s
        ctx.save_for_backward(s, a, b, value)
        ctx.n = n
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Float64[Tensor, " n"]) -> tuple[Any, ...]:
        s, a, b, value = ctx.saved_tensors
        slope = _Screened.apply(s, a, b, ctx.n + 1, value.detach())
        of_decay = gradient * _gaussian(a, s, ctx.n + 1) / a if ctx.needs_input_grad[1] else None
        return -0.5 * gradient * slope, of_decay, None, None, None


def _gaussian(
    decay: Float64[Tensor, "#n"], s: Float64[Tensor, " n"], n: int
) -> Float64[Tensor, " n"]:
    """Term ``g_n−1`` of `_Screened` that belongs to one of its Gaussians."""
    square = decay * decay
    return (2 / math.sqrt(math.pi)) * decay * (2 * square) ** (n - 1) * torch.exp(-square * s)


def self_interaction(
    smearing: Float64[Tensor, " n"], splitting: Float64[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    """Interaction in eV/e² of a unit charge with itself, less its screening cloud.

    The Gaussian width `smearing` is in Å, the Ewald parameter `splitting` in 1/Å.
    """
    return COULOMB_CONSTANT * (1 / smearing - 2 * splitting) / math.sqrt(math.pi)


def reciprocal_interaction(
    k_squared: Float64[Tensor, "s n_k"],
    splitting: Float64[Tensor, " s"],
    volume: Float64[Tensor, " s"],
) -> Float64[Tensor, "s n_k"]:
    """Weight in eV/e² of each pair ±k, ``(8π k_e/V) exp(−k²/4α²)/k²``; zero for k = 0 (padding).

    k² is in 1/Å², α in 1/Å, the volume V in Å³.
    """
    present = k_squared > 0
    k_squared = torch.where(present, k_squared, 1.0)
    alpha = torch.where(splitting > 0, splitting, 1.0)[:, None]
    prefactor = 8 * math.pi * COULOMB_CONSTANT / volume[:, None]
    weight = prefactor * torch.exp(-k_squared / (4 * alpha**2)) / k_squared
    return torch.where(present, weight, 0.0)


def transform(k_squared: Float64[Tensor, "..."], splitting: float) -> Float64[Tensor, "..."]:
    """Fourier transform ``4π k_e exp(−k²/4α²)/k²`` of the smooth part in eV Å³/e², for k ≠ 0."""
    strength = 4 * math.pi * COULOMB_CONSTANT
    return strength * torch.exp(k_squared * (-0.25 / splitting**2)) / k_squared


def background_interaction(
    splitting: Float64[Tensor, " s"], volume: Float64[Tensor, " s"]
) -> tuple[Float64[Tensor, " s"], Float64[Tensor, " s"]]:
    """Uniform neutralizing background of a periodic cell, for every pair i, j (itself included).

    Returns the coefficients (a, b) of ``a − b (σ_i² + σ_j²)`` with ``b = −2πk_e/V`` in eV/(Å² e²)
    and ``a = b/(2α²)`` in eV/e²: together ``−(2πk_e/V)(η² − γ_ij²)``. Without it the matrix would
    depend on the Ewald parameter α (in 1/Å). Both are zero for open structures (α = 0). The volume
    V is in Å³.
    """
    periodic = splitting > 0
    alpha = torch.where(periodic, splitting, 1.0)
    strength = torch.where(periodic, -2 * math.pi * COULOMB_CONSTANT / volume, 0.0)
    return strength / (2 * alpha**2), strength
