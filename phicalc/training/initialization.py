"""Potentials before the first step of training: random or inherited weights, fitted constants."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor, nn

from phicalc.backbone import Standardized, backbones_of
from phicalc.checkpoint import load_model, read_card
from phicalc.nn import EquivariantLinear, block
from phicalc.plugins import is_foreign
from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.schema import flatten
from phicalc.training.config import FITTED
from phicalc.training.dataset import Sample, prepare_samples
from phicalc.training.references import (
    with_fitted_reference_energies,
    with_nearest_distances,
    with_reference_energies,
    with_scales,
    with_shorter_distances,
)
from phicalc.training.states import doubts_of_states, fit_states

#: Structures that `standardize_weights` looks at.
SAMPLE_SIZE = 16
#: Factor of the random weights that read parameters of charges.
_SMALL = 0.1


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
    brought to their scale (`standardize_weights`, `calm_readouts`), formal charges are fitted to
    those of molecules (`fit_states`), and reference energies to the energies that remain.

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
        Sentences for people about what was fitted.

    Raises
    ------
    ValueError
        If `given_references` lacks an element.
    """
    config, notes = with_scales(config, samples)
    config = with_nearest_distances(config, samples)
    if given_references is not None:
        config = with_reference_energies(config, given_references)
    potential = build_potential(config, seed=seed).to(device=device, dtype=dtype)
    notes += fit_states(potential, samples, seed)
    _start_small(potential)
    notes += standardize_weights(potential, samples)
    calm_readouts(potential, samples)
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

    Weights, energy scale and mean number of neighbours are the parent's, and so are its nearest
    distances where the data have no shorter ones. Its reference energies are corrected by a fit to
    its errors in the training energies, which may come from another level of theory. Elements that
    are absent from the data keep their reference energies.

    Parameters
    ----------
    init
        Name or folder of the parent.
    config
        Configuration of the run; its network must be the parent's.
    samples, given_references, device, dtype
        As for `initial_potential`.

    Returns
    -------
    potential, notes
        As from `initial_potential`.

    Raises
    ------
    ValueError
        If the configuration describes another network, or `given_references` lacks an element.
    """
    allowed = _foreign_names(read_card(init).potential) <= _foreign_names(config.to_dict())
    potential, card = load_model(init, device=device, dtype=dtype, allow_import=allowed)
    wanted, found = flatten(config.to_dict()), flatten(potential.config.to_dict())
    unlike = [key for key in wanted | found if wanted.get(key) != found.get(key)]
    kinds = [key.removesuffix("name") for key in unlike if key.endswith(".name")]
    different = [
        f"model.{key} is {wanted.get(key)!r}, the parent's {found.get(key)!r}"
        for key in unlike
        if key not in FITTED and (key.endswith(".name") or not key.startswith(tuple(kinds)))
    ]
    if different:
        raise ValueError(
            f"init: {init} is another network: {'; '.join(different)}. Set these to the parent's "
            "values (a model cannot learn new elements), or train from the start"
        )
    potential.uncertainty = None  # that of the parent's weights
    nearer = with_shorter_distances(potential.config, samples)
    if nearer != potential.config:
        potential = _rebuilt(potential, nearer)
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
    notes += doubts_of_states(potential, samples)
    return potential.train(), notes


def _rebuilt(potential: Potential, config: PotentialConfig) -> Potential:
    """Return the same weights in a potential with other settings that no weight depends on."""
    new = build_potential(config).to(device=potential.embedding.device, dtype=potential.dtype)
    new.load_state_dict(potential.state_dict())
    return new


def _foreign_names(potential: Mapping[str, Any]) -> set[str]:
    """Import paths in the settings of a potential; the user wants those in a configuration."""
    names = (section.get("name") for section in potential.values() if isinstance(section, Mapping))
    return {name for name in names if isinstance(name, str) and is_foreign(name)}


@torch.no_grad()
def standardize_weights(potential: Potential, samples: Sequence[Sample]) -> list[str]:
    """Scale random weights so that signals have the same size in every layer, on these data.

    How large a sum of messages is depends on distances and symmetry as much as on the number of
    neighbours, and a product at the nodes takes its third power: bonded atoms would start with
    features hundreds of times too large, lonely ions with none. Each backbone names the maps that
    set the scale (`phicalc.backbone.Standardized`).

    Parameters
    ----------
    potential
        Changed in place.
    samples
        The training structures; some of them, evenly chosen, are looked at.

    Returns
    -------
    notes
        One sentence for each backbone that names no maps; its weights are left alone.

    References
    ----------
    Mishkin & Matas, ICLR 2016 (arXiv:1511.06422), for every degree l on its own.
    """
    prepared = _some(samples, potential)
    notes = []
    for name, backbone in backbones_of(potential).items():
        if not isinstance(backbone, Standardized):
            notes.append(
                f"the initial weights of {name} ({type(backbone).__name__}) are as its constructor "
                "drew them, not brought to the scale of the data: it has no standardized_maps"
            )
            continue
        for linear, size in backbone.standardized_maps():
            _rescale(linear, _outputs(linear, potential, prepared), size)
    return notes


@torch.no_grad()
def _start_small(potential: Potential) -> None:
    """Scale down what the head reads from the features (`Head.readouts`)."""
    for readout in potential.head.readouts():
        readout.weight.mul_(_SMALL)


@torch.no_grad()
def calm_readouts(potential: Potential, samples: Sequence[Sample]) -> None:
    """Scale the readouts down until short-range forces are no larger than the energy scale per Å.

    Parameters
    ----------
    potential
        Changed in place.
    samples
        The training structures; some of them, evenly chosen, are looked at.
    """
    forces = torch.cat([_short_range_forces(potential, s) for s in _some(samples, potential)])
    factor = potential.config.energy_scale / float(forces.square().mean().sqrt().clamp(min=1e-9))
    for layer in (potential.linear_readout, potential.readout[-1]):
        for parameter in layer.parameters():
            parameter.mul_(min(1.0, factor))


@torch.enable_grad()
def _short_range_forces(potential: Potential, sample: Sample) -> Float64[Tensor, "n_atoms 3"]:
    """Return the forces of the short-range energy alone in eV/Å."""
    graph = sample.graph.to(potential.device)
    graph = graph._replace(positions=graph.positions.detach().requires_grad_())
    energy = potential(graph).terms["short_range"].sum()
    (slope,) = torch.autograd.grad(energy, graph.positions, allow_unused=True)
    return torch.zeros_like(graph.positions) if slope is None else -slope


def _some(samples: Sequence[Sample], potential: Potential) -> Sequence[Sample]:
    """Return some of the structures, evenly chosen, with what their sums need."""
    return prepare_samples(samples[:: max(1, len(samples) // SAMPLE_SIZE)], potential)


def _outputs(
    linear: nn.Module, potential: Potential, prepared: Sequence[Sample]
) -> Shaped[Tensor, "..."]:
    """Return what a map gives for some structures, along the first axis."""
    outputs: list[Tensor] = []
    hook = linear.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        for sample in prepared:
            potential(sample.graph.to(potential.device))
    finally:
        hook.remove()
    return torch.cat(outputs)


def _rescale(linear: nn.Module, outputs: Shaped[Tensor, "..."], size: float) -> None:
    """Scale the parameters of a map so that its outputs get this root mean square."""
    if isinstance(linear, EquivariantLinear):
        for degree in range(linear.l_max + 1):
            found = outputs[:, block(degree)].square().mean().sqrt()
            if found > 0:
                linear.weight[degree] *= size / found
        return
    found = outputs.square().mean().sqrt()
    if found > 0:
        for parameter in linear.parameters():
            parameter.mul_(size / found)
