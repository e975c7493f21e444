"""How likely the states of atoms make the charges of molecules."""

import math

import torch
from jaxtyping import Float64, Int64

from phicalc.electrostatics.head import Formal
from phicalc.graph import AtomicGraph, bonded_parts, sum_per_structure

#: ε: where the probability of another charge is smaller, a molecule counts as certain.
_DOUBT = 0.01
#: Charges that differ by so many e count as the same.
_PERIOD = 64
#: Smallest probability in double precision that means something.
_SMALLEST = 1e-14


def charge_defects(
    formal: Formal,
    graph: AtomicGraph,
    charges: Float64[torch.Tensor, " n_atoms"] | None = None,
    part: Int64[torch.Tensor, " n_atoms"] | None = None,
) -> Float64[torch.Tensor, ""]:
    """Sum up how unlikely the states of atoms make the charges of molecules, over a batch.

    Parameters
    ----------
    formal
        Formal charges, and the probabilities of the states that they are means of.
    graph
        The batch.
    charges
        Labels in e, NaN where there are none.
    part
        Number of the first atom of the bonded part that each atom belongs to; found if not given.

    Returns
    -------
    defects
        ``s + ln(1 + s/ε)`` with ``s = −ln P(Q)`` for each structure, and for each bonded part of
        structures with several: P is the probability that the states of its atoms, drawn
        independently, sum to Q. Q is the total charge; of a part the integer nearest to the sum of
        its labels, or else of the means. s alone corrects wrong states, its logarithm makes nearly
        certain ones worth a further effort.
    """
    part = bonded_parts(graph) if part is None else part
    target = _at_parts(means(formal.probabilities), part)
    if charges is not None:
        labeled = _at_parts(charges, part)
        target = torch.where(labeled.isfinite(), labeled, target)
    begins = part == torch.arange(len(part), device=part.device)
    several = begins & (sum_per_structure(begins.double(), graph)[graph.batch] > 1)
    parts = surprise(formal.probabilities, part, target.detach())
    wholes = surprise(formal.probabilities, graph.batch, graph.total_charge)
    return _tightened(torch.where(several, parts, 0.0)).sum() + _tightened(wholes).sum()


def _tightened(surprises: Float64[torch.Tensor, " n"]) -> Float64[torch.Tensor, " n"]:
    return surprises + torch.log1p(surprises / _DOUBT)


def surprise(
    probabilities: Float64[torch.Tensor, "n_atoms n_states"],
    group: Int64[torch.Tensor, " n_atoms"],
    charge: Float64[torch.Tensor, " n_groups"],
) -> Float64[torch.Tensor, " n_groups"]:
    """Return ``−ln P`` of the charge of each group if its atoms draw their states independently.

    P is the Fourier integral of the characteristic function ``Π_i Σ_k p_ik exp(i k t)``; midpoints
    avoid t = π, where two equally likely neighboring states cancel.

    Parameters
    ----------
    probabilities
        Of the states −K … K e of each atom.
    group
        Number of the group that each atom belongs to.
    charge
        In e; rounded to integers.
    """
    device = probabilities.device
    t = 2 * math.pi / _PERIOD * (torch.arange(_PERIOD // 2, device=device).double() + 0.5)
    states = _states(probabilities)
    logs = (probabilities.to(torch.complex128) @ torch.exp(1j * torch.outer(states, t))).log()
    exponents = logs.new_zeros(len(charge), len(t)).index_add(0, group, logs)
    turned = torch.exp(exponents - 1j * torch.outer(charge.round(), t))
    probability = 2 / _PERIOD * turned.real.sum(1)
    return -torch.log(probability.clamp(_SMALLEST, 1.0))


def distances(
    formal: Formal, charges: Float64[torch.Tensor, " n_atoms"]
) -> Float64[torch.Tensor, ""]:
    """Mean square distance in e² of the states of atoms from their charges, summed over a batch.

    `charges` are labels in e; atoms without one (NaN) count as neutral.
    """
    states = _states(formal.probabilities)
    return (formal.probabilities * (states - charges.nan_to_num()[:, None]) ** 2).sum()


def means(
    probabilities: Float64[torch.Tensor, "n_atoms n_states"],
) -> Float64[torch.Tensor, " n_atoms"]:
    """Return the mean state of each atom in e."""
    return probabilities @ _states(probabilities)


def _states(
    probabilities: Float64[torch.Tensor, "n_atoms n_states"],
) -> Float64[torch.Tensor, " n_states"]:
    """Return the charges in e that probabilities belong to."""
    largest = probabilities.shape[1] // 2
    return torch.arange(-largest, largest + 1, device=probabilities.device).to(probabilities)


def _at_parts(
    values: Float64[torch.Tensor, " n_atoms"], part: Int64[torch.Tensor, " n_atoms"]
) -> Float64[torch.Tensor, " n_atoms"]:
    """Sum over the atoms of each part, at its first atom."""
    return torch.zeros_like(values).index_add(0, part, values)
