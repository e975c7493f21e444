"""Formal charges of a new potential: fitted to the charges of molecules before training begins.

Which ion a molecule is does not depend on energies. Were states of atoms trained together with
these, each that changes would throw energies and forces off by electronvolts.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64

from phicalc.electrostatics.charges.formal import FormalCharges
from phicalc.graph import AtomicGraph, bonded_parts
from phicalc.potential import Potential
from phicalc.training.dataset import Sample, join
from phicalc.training.integer_charges import charge_defects, distances
from phicalc.training.soap import SOAP

#: Structures at a time, largest number of steps, and the rate of the first.
_BATCH, _STEPS, _RATE = 32, 2000, 0.03
#: The fit ends where the mean penalty of the structures is smaller.
_ENOUGH = 0.01
#: It also ends after so many steps that have not made it smaller.
_PATIENCE = 100
#: From this penalty on, molecules have other charges than the states of their atoms make.
_UNSUITED = 1.0
#: Weight of the mean square distance between states and charges (1/e²): of all states with the
#: right sums, those next to the charges of atoms are taken, and molecules never seen follow them.
#: The charge of bonded hydrogen counts with the atom that it is bonded to.
_TIE = 0.05
#: Largest number of structures that are looked at.
_STRUCTURES = 10_000


class _Batch(NamedTuple):
    """Some structures, the charges of their atoms, and those with bonded hydrogen united."""

    element: Int64[torch.Tensor, " n_atoms"]
    graph: AtomicGraph
    charges: Float64[torch.Tensor, " n_atoms"]
    united: Float64[torch.Tensor, " n_atoms"]
    part: Int64[torch.Tensor, " n_atoms"]


def fit_states(potential: Potential, samples: Sequence[Sample], seed: int) -> list[str]:
    """Make formal charges of molecules the integers that they are in the training data.

    Parameters
    ----------
    potential
        Changed in place, if its head has formal charges.
    samples
        The training structures.
    seed
        Of their order.

    Returns
    -------
    notes
        One sentence about the fit, if there is one.
    """
    starting = potential.head.starting
    if starting is None or not samples:
        return []
    batches = _batches(potential, samples, seed)
    starting.formal.requires_grad_()
    try:
        _start(starting.formal, batches)
        steps, defects = _minimize(starting, batches, seed)
    finally:
        starting.formal.requires_grad_(False)
    return [f"formal charges fitted in {steps} steps: mean penalty {defects:.3g} (0 if certain)"]


def _start(formal: FormalCharges, batches: Sequence[_Batch]) -> None:
    """Start from probabilities ``∝ exp(−(k − q)²)`` of each element.

    q is its mean charge, or zero, to the next integer: what is neither is for the bonds to tell.
    """
    element = torch.cat([batch.element for batch in batches])
    charges = torch.cat([batch.united for batch in batches])
    known = charges.isfinite()
    counts = torch.bincount(element[known], minlength=len(formal.element))
    sums = charges.new_zeros(len(counts)).index_add(0, element[known], charges[known])
    nearest = (sums / counts.clamp(min=1)).round()
    with torch.no_grad():
        formal.element.copy_(-((formal.states - nearest[:, None]) ** 2))


@torch.no_grad()
def doubts_of_states(potential: Potential, samples: Sequence[Sample]) -> list[str]:
    """Say how well the formal charges of a potential suit other data than it was made for.

    Parameters
    ----------
    potential
        A trained one.
    samples
        The training structures.

    Returns
    -------
    notes
        One sentence, if its head has formal charges.
    """
    starting = potential.head.starting
    if starting is None or not samples:
        return []
    defects, n_structures = 0.0, 0
    for batch in _batches(potential, samples, seed=0):
        formal = starting.states(batch.element, batch.graph)
        defects += float(charge_defects(formal, batch.graph, batch.charges, batch.part))
        n_structures += batch.graph.n_structures
    mean = defects / n_structures
    trained = "; penalties.integer_fragments trains them" if mean > _UNSUITED else ""
    return [f"formal charges of the parent: mean penalty {mean:.3g} (0 if certain){trained}"]


def _minimize(starting: Any, batches: Sequence[_Batch], seed: int) -> tuple[int, float]:
    """Return the number of steps, and the mean penalty over the last pass."""
    optimizer = SOAP(starting.formal.parameters(), lr=_RATE)
    order, step, mean = np.random.default_rng(seed), 0, math.inf
    best, since, patience = math.inf, 0, max(_PATIENCE, 20 * len(batches))
    while step < _STEPS and mean > _ENOUGH and step - since < patience:
        values = []
        for index in order.permutation(len(batches)):
            batch = batches[index]
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * _RATE * (1 + math.cos(math.pi * min(1.0, step / _STEPS)))
            formal = starting.states(batch.element, batch.graph)
            defects = charge_defects(formal, batch.graph, batch.charges, batch.part)
            loss = defects + _TIE * distances(formal, batch.united)
            optimizer.zero_grad()
            (loss / batch.graph.n_structures).backward()
            optimizer.step()
            values.append(float(defects.detach()) / batch.graph.n_structures)
            step += 1
        mean = float(np.mean(values))
        if mean < 0.99 * best:
            best, since = mean, step
    return step, mean


def _batches(potential: Potential, samples: Sequence[Sample], seed: int) -> list[_Batch]:
    """Return the structures in batches, in random order."""
    chosen = np.random.default_rng(seed).permutation(len(samples))[:_STRUCTURES]
    batches = []
    for start in range(0, len(chosen), _BATCH):
        some = [samples[i] for i in chosen[start : start + _BATCH]]
        sample = join(some).to(potential.device)
        element = potential.element_of_number[sample.graph.atomic_numbers]
        graph = potential.head.prepare(sample.graph, element)
        charges = sample.labels.charges
        united = _united(potential, charges, element, graph)
        batches.append(_Batch(element, graph, charges, united, bonded_parts(graph)))
    return batches


def _united(
    potential: Potential,
    charges: Float64[torch.Tensor, " n_atoms"],
    element: Int64[torch.Tensor, " n_atoms"],
    graph: AtomicGraph,
) -> Float64[torch.Tensor, " n_atoms"]:
    """Return the charges with those of bonded hydrogen moved; NaN where there are none."""
    starting = potential.head.starting
    assert starting is not None
    links = starting.links(graph, element)
    united = starting.formal.hydrogens.united(charges.nan_to_num(), element, links)
    return torch.where(charges.isfinite(), united, math.nan)
