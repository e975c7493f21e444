"""What a configuration takes from the training data: energy scale, neighbours, references."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.data.composition import ReferenceFit, count_elements, fit_reference_energies
from phicalc.domain.frames import nearest_distances
from phicalc.potential import Potential, PotentialConfig
from phicalc.training.dataset import Sample, batch_plan, batches, prepare_samples

#: Atoms whose energies a GPU computes together.
GPU_ATOMS = 10_000


def with_reference_energies(config: PotentialConfig, given: dict[str, float]) -> PotentialConfig:
    """Complete a configuration by reference energies in eV that the user gives.

    Raises
    ------
    ValueError
        When they leave an element of the potential out.
    """
    missing = [symbol for symbol in config.elements if symbol not in given]
    if missing:
        raise ValueError(
            f"data.reference_energies lacks {', '.join(missing)}; give an energy in eV for "
            "every element of the model"
        )
    references = tuple(given[symbol] for symbol in config.elements)
    return replace(config, reference_energies=references)


def with_fitted_reference_energies(
    potential: Potential, samples: Sequence[Sample]
) -> tuple[PotentialConfig, list[str]]:
    """Complete a potential's configuration by reference energies fitted to the training data.

    They are fitted to what the untrained network leaves of the training energies, since its
    electrostatic energy is far from zero. Returns sentences about the fit, too.
    """
    config = potential.config
    labelled = [sample for sample in samples if bool(sample.labels.energy.isfinite())]
    if not labelled:
        return config, ["no energies in the data: the reference energies are 0"]
    untrained = _energies(potential, labelled).numpy()
    energies = torch.cat([sample.labels.energy for sample in labelled]).numpy()
    counts = count_elements([sample.graph for sample in labelled], potential.elements)
    fit = fit_reference_energies(counts, energies - untrained)
    fitted = replace(config, reference_energies=tuple(map(float, fit.energies)))
    return fitted, _describe(fit, config.elements)


def with_scales(
    config: PotentialConfig, samples: Sequence[Sample]
) -> tuple[PotentialConfig, list[str]]:
    """Complete a configuration by energy scale and mean number of neighbours of the data.

    The energy scale becomes the root mean square of the force components (in eV, for a length of
    1 Å): the unit of the short-range network only, the electrostatic terms stay in eV.
    Returns sentences about both, too.
    """
    forces = torch.cat([sample.labels.forces for sample in samples])
    forces = forces[forces.isfinite().all(dim=1)]
    scale = float(forces.square().mean().sqrt()) if len(forces) else 0.0
    n_atoms = sum(sample.graph.n_atoms for sample in samples)
    # 1 at least: atoms that never meet must not have their messages divided by zero.
    neighbors = max(1.0, sum(sample.graph.n_edges for sample in samples) / n_atoms)
    notes = [f"{neighbors:.1f} neighbours per atom within {config.cutoff} Å"]
    if scale > 0:
        notes.append(f"energy scale {scale:.4f} eV (root mean square force, eV/Å)")
    else:
        scale = 1.0
        notes.append("no forces in the data: the energy scale is 1 eV")
    return replace(config, average_neighbors=neighbors, energy_scale=scale), notes


def with_nearest_distances(config: PotentialConfig, samples: Sequence[Sample]) -> PotentialConfig:
    """Complete a backbone with an inner envelope by the nearest distances of the data."""
    found = config.backbone.settings
    if not getattr(found, "inner_envelope", False) or found.nearest_distances is not None:
        return config
    return _with_nearest(config, nearest_distances(sample.graph for sample in samples))


def with_shorter_distances(config: PotentialConfig, samples: Sequence[Sample]) -> PotentialConfig:
    """Let a backbone with nearest distances see those of the data that are shorter.

    Without this a model that is trained further could not tell lengths below the nearest ones of
    its first training from each other.
    """
    known = getattr(config.backbone.settings, "nearest_distances", None)
    if known is None:
        return config
    found = nearest_distances(sample.graph for sample in samples)
    shorter = {pair: d for pair, d in found.items() if d < known.get(pair, math.inf)}
    return _with_nearest(config, {**known, **shorter}) if shorter else config


def _with_nearest(config: PotentialConfig, nearest: dict[str, float]) -> PotentialConfig:
    settings = replace(config.backbone.settings, nearest_distances=nearest)
    return replace(config, backbone=replace(config.backbone, settings=settings))


def _energies(potential: Potential, samples: Sequence[Sample]) -> Float64[Tensor, " n_samples"]:
    """Total energies by the potential as it is, in eV."""
    prepared = prepare_samples(samples, potential)
    device, largest = potential.embedding.device, max(graph.n_atoms for graph, _ in samples)
    # A CPU gains nothing from batches, and single structures give every process the same bits.
    size = GPU_ATOMS // max(1, largest) if device.type == "cuda" else 1
    plan = batch_plan(len(samples), max(1, size))
    with torch.no_grad():
        found = batches(prepared, plan, device)
        return torch.cat([potential(batch.graph).energy for batch in found]).cpu()


def _describe(fit: ReferenceFit, elements: Sequence[str]) -> list[str]:
    """Say in words what came out of a fit."""
    listed = ", ".join(f"{s} {e:.4f}" for s, e in zip(elements, fit.energies, strict=True))
    notes = [f"reference energies {listed} eV; {1e3 * fit.residual:.2f} meV/atom remain"]
    if fit.rank < len(elements):
        notes.append(
            f"the compositions determine only {fit.rank} of {len(elements)} reference energies; "
            "the smallest that fit were taken (their sum over each structure is right)"
        )
    return notes
