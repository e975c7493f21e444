"""The potential before its first step of training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from phicalc.backbone.nequip import Interaction
from phicalc.checkpoint import load_model
from phicalc.nn import EquivariantLinear, block
from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.training.config import FITTED
from phicalc.training.dataset import Sample, prepare_samples
from phicalc.training.references import (
    with_fitted_reference_energies,
    with_reference_energies,
    with_scales,
)

#: Structures that `standardize_weights` looks at.
SAMPLE_SIZE = 16

#: Root mean square it gives to the aggregated messages, and to what enters each gate.
DENSITY, UPDATE = 0.5, 0.5


def initial_potential(
    config: PotentialConfig,
    samples: Sequence[Sample],
    *,
    seed: int,
    given_references: dict[str, float] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Potential, list[str]]:
    """Make an untrained potential that suits the training data.

    Energy scale and mean number of neighbours are those of the data, the random weights are
    brought to their scale (`standardize_weights`), and reference energies are fitted to what is
    left of the energies.

    Parameters
    ----------
    config
        The configuration so far.
    samples
        The training structures.
    seed
        Seed of the initial weights.
    given_references
        Reference energies in eV to use instead of a fit.
    device, dtype
        Where and in what precision to make it.

    Returns
    -------
    potential
        With the completed configuration.
    notes
        Sentences about what was fitted, for people.

    Raises
    ------
    ValueError
        When given references leave an element out.
    """
    config, notes = with_scales(config, samples)
    if given_references is not None:
        config = with_reference_energies(config, given_references)
    potential = build_potential(config, seed=seed).to(device=device, dtype=dtype)
    standardize_weights(potential, samples)
    if given_references is None:
        potential.config, more = with_fitted_reference_energies(potential, samples)
        notes += more
    return potential, notes


def inherited_potential(
    init: str,
    config: PotentialConfig,
    samples: Sequence[Sample],
    *,
    given_references: dict[str, float] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Potential, list[str]]:
    """Make a potential that starts from the weights of a trained one (fine-tuning).

    Weights, energy scale and mean number of neighbours are the parent's; its reference energies are
    corrected by a fit to what it leaves of the training energies, since these may come from
    another level of theory. Elements that the data do not hold keep theirs.

    Parameters
    ----------
    init
        Name or folder of the parent.
    config
        What the configuration of the run says: the parent's network.
    samples, given_references, device, dtype
        As for `initial_potential`.

    Returns
    -------
    potential, notes
        As from `initial_potential`.

    Raises
    ------
    ValueError
        If the configuration describes another network, or given references leave an element out.
    """
    potential, card = load_model(init, device=device, dtype=dtype)
    wanted, found = config.to_dict(), potential.config.to_dict()
    different = [
        f"model.{key} is {wanted[key]!r}, the parent's {found[key]!r}"
        for key in wanted
        if wanted[key] != found[key] and key not in FITTED
    ]
    if different:
        raise ValueError(
            f"init: {init} is another network: {'; '.join(different)}. Set these to the parent's "
            "values (a model cannot learn new elements), or train from the start"
        )
    notes = [f"starting from the weights of {card.name} (SHA-256 {card.sha256[:12]}…)"]
    if given_references is not None:
        potential.config = with_reference_energies(potential.config, given_references)
    else:
        before = potential.config.reference_energies
        corrections, more = with_fitted_reference_energies(potential, samples)
        added = zip(before, corrections.reference_energies, strict=True)
        references = tuple(old + new for old, new in added)
        potential.config = replace(potential.config, reference_energies=references)
        notes += [f"added to those of the parent: {note}" for note in more]
    return potential.train(), notes


@torch.no_grad()
def standardize_weights(potential: Potential, samples: Sequence[Sample]) -> None:
    """Scale random weights so that signals have the same size in every layer, on these data.

    How large a sum of messages is depends on distances and symmetry as much as on the number of
    neighbours, and the product at the nodes takes its third power: bonded atoms would start with
    features hundreds of times too large, lonely ions with none.

    References
    ----------
    Mishkin & Matas, ICLR 2016 (arXiv:1511.06422), for every degree l on its own.
    """
    chosen = samples[:: max(1, len(samples) // SAMPLE_SIZE)]
    prepared = prepare_samples(chosen, potential)
    for linear, size in _scaled_maps(potential):
        outputs: list[torch.Tensor] = []
        hook = linear.register_forward_hook(lambda _, __, output: outputs.append(output))  # noqa: B023
        for sample in prepared:
            potential(sample.graph.to(potential.embedding.device))
        hook.remove()
        values = torch.cat(outputs)
        for degree in range(linear.l_max + 1):
            found = values[:, block(degree)].square().mean().sqrt()
            if found > 0:
                linear.weight[degree] *= size / found


def _scaled_maps(potential: Potential) -> Iterator[tuple[EquivariantLinear, float]]:
    """Linear maps whose output gets a certain size, in the order in which they act."""
    for module in potential.modules():
        if isinstance(module, Interaction):
            yield module.mix, DENSITY
            yield module.linear, UPDATE
