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

from phicalc.electrostatics.head import Formal
from phicalc.graph import AtomicGraph, bonded_parts
from phicalc.potential import Potential
from phicalc.training.dataset import Sample, join
from phicalc.training.integer_charges import charge_defects, means
from phicalc.training.soap import SOAP

#: Structures at a time, largest number of steps, and the rate of the first.
_BATCH, _STEPS, _RATE = 32, 4000, 0.03
#: Size in Å of random displacements of the atoms, and weight of the square slopes of charges.
_SHAKE, _STEEP = 0.03, 0.01
#: The fit ends where the mean penalty of the structures is smaller.
_ENOUGH = 0.01
#: Largest number of structures that are looked at.
_STRUCTURES = 10_000


class _Batch(NamedTuple):
    """Some structures."""

    element: Int64[torch.Tensor, " n_atoms"]
    graph: AtomicGraph
    charges: Float64[torch.Tensor, " n_atoms"]
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
        steps, defects = _minimize(starting, batches, seed)
    finally:
        starting.formal.requires_grad_(False)
    return [f"formal charges fitted in {steps} steps: mean penalty {defects:.3g} (0 if certain)"]


def _minimize(starting: Any, batches: Sequence[_Batch], seed: int) -> tuple[int, float]:
    """Return the number of steps, and the mean penalty over the last pass."""
    optimizer = SOAP(starting.formal.parameters(), lr=_RATE)
    order, step, mean = np.random.default_rng(seed), 0, math.inf
    random = torch.Generator(device=batches[0].graph.positions.device).manual_seed(seed)
    while step < _STEPS and mean > _ENOUGH:
        values = []
        for index in order.permutation(len(batches)):
            batch = batches[index]
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * _RATE * (1 + math.cos(math.pi * min(1.0, step / _STEPS)))
            graph = _displaced(batch.graph, random)
            formal = starting.states(batch.element, graph)
            defects = charge_defects(formal, batch.graph, batch.charges, batch.part)
            loss = (defects + _STEEP * _steepness(formal, graph, random)) / batch.graph.n_structures
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(float(defects.detach()) / batch.graph.n_structures)
            step += 1
        mean = float(np.mean(values))
    return step, mean


def _displaced(graph: AtomicGraph, random: torch.Generator) -> AtomicGraph:
    """Move all atoms a little at random: which ion a molecule is, is not to depend on that."""
    noise = torch.randn(graph.positions.shape, generator=random, device=graph.positions.device)
    return graph._replace(positions=(graph.positions + _SHAKE * noise).requires_grad_())


def _steepness(
    formal: Formal, graph: AtomicGraph, random: torch.Generator
) -> Float64[torch.Tensor, ""]:
    """``Σ_ij |∂f_i/∂r_j|²`` of the mean states f in e²/Å², by a random sample.

    Steep charges would make large forces where states are not certain.
    """
    states = means(formal.probabilities)
    sample = torch.randn(states.shape, generator=random, device=states.device).to(states)
    (slope,) = torch.autograd.grad(states @ sample, graph.positions, create_graph=True)
    return slope.square().sum()


def _batches(potential: Potential, samples: Sequence[Sample], seed: int) -> list[_Batch]:
    """Return the structures in batches, in random order."""
    chosen = np.random.default_rng(seed).permutation(len(samples))[:_STRUCTURES]
    batches = []
    for start in range(0, len(chosen), _BATCH):
        some = [samples[i] for i in chosen[start : start + _BATCH]]
        sample = join(some).to(potential.device)
        element = potential.element_of_number[sample.graph.atomic_numbers]
        graph = potential.head.prepare(sample.graph, element)
        batches.append(_Batch(element, graph, sample.labels.charges, bonded_parts(graph)))
    return batches
