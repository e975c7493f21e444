from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from phicalc.backbone.interaction import Interaction
from phicalc.data.composition import fit_reference_energies
from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.data.frames import label_atoms
from phicalc.nn import block
from phicalc.potential import build_potential
from phicalc.training.dataset import Sample, make_samples, prepare_samples
from phicalc.training.initialization import initial_potential

from ..tiny import flat_config

CONFIG = flat_config(elements=("H", "C"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=2)


@pytest.fixture
def samples(carbon_chain) -> list[Sample]:
    return make_samples(read_frames(carbon_chain, KeysConfig()), CONFIG.cutoff)


def test_regular_fit_recovers_the_energies(rng):
    counts = rng.integers(1, 9, size=(40, 3)).astype(float)
    energies = counts @ [-13.6, -1029.3, -2041.7]
    fit = fit_reference_energies(counts, energies)
    assert fit.energies == pytest.approx([-13.6, -1029.3, -2041.7], abs=1e-9)
    assert fit.rank == 3
    assert fit.residual < 1e-10


def test_fixed_composition_gets_the_smallest_energies_that_fit():
    fit = fit_reference_energies(np.array([[128.0, 64.0]] * 3), np.full(3, -29943.0))
    assert fit.rank == 1
    # smallest norm subject to 128 h + 64 o = E: proportional to the counts
    assert fit.energies == pytest.approx(np.array([2, 1]) * -29943.0 / 320, rel=1e-12)


def test_structures_count_by_energy_per_atom():
    # an error of 1 eV/atom in a small structure weighs like one in a large structure
    fit = fit_reference_energies(np.array([[2.0], [200.0]]), np.array([2.0, 400.0]))
    assert fit.energies == pytest.approx([1.5])
    assert fit.residual == pytest.approx(0.5)


def test_untrained_network_starts_without_offset(samples):
    potential, notes = initial_potential(CONFIG, samples, seed=3, dtype=torch.float64)
    rest = []
    for graph, labels in prepare_samples(samples, potential):
        energy = potential(graph).energy.detach()
        rest.append(float(energy - labels.energy) / graph.n_atoms)
    assert abs(np.mean(rest)) < 1e-9  # two compositions, two elements: the mean is fitted away
    assert "reference energies H" in " ".join(notes)
    with torch.no_grad():
        before = build_potential(CONFIG, seed=3).double()
        (sample,) = prepare_samples(samples[:1], before)
        assert abs(float(before(sample.graph).energy - sample.labels.energy)) > 100


def test_scales_are_those_of_the_data(samples):
    config = initial_potential(CONFIG, samples, seed=0)[0].config
    forces = torch.cat([sample.labels.forces for sample in samples])
    assert config.energy_scale == pytest.approx(float(forces.square().mean().sqrt()))
    edges = sum(sample.graph.n_edges for sample in samples)
    assert config.average_neighbors == pytest.approx(edges / len(forces))


def test_energy_scale_leaves_coulomb_alone(samples):
    terms = []
    for scale in (1.0, 7.0):
        config = dataclasses.replace(CONFIG, energy_scale=scale)
        potential = build_potential(config, seed=1).double()
        (sample,) = prepare_samples(samples[:1], potential)
        terms.append({k: float(v.detach()) for k, v in potential(sample.graph).terms.items()})
    small, large = terms
    assert abs(small["electrostatic"]) > 1e-3
    assert large["electrostatic"] == small["electrostatic"]
    assert large["short_range"] == pytest.approx(7 * small["short_range"])


def test_given_references_are_used(samples):
    given = {"C": -1029.0, "H": -13.0, "O": 5.0}
    potential, _ = initial_potential(CONFIG, samples, seed=0, given_references=given)
    assert potential.config.reference_energies == (-13, -1029)
    with pytest.raises(ValueError, match="data.reference_energies lacks C"):
        initial_potential(CONFIG, samples, seed=0, given_references={"H": 0.0})


def test_data_without_forces_energies_or_neighbours():
    far = label_atoms(Atoms("HC", [[0, 0, 0], [0, 0, 50]]), KeysConfig())
    potential, notes = initial_potential(CONFIG, make_samples([far], 3.0), seed=0)
    assert potential.config.average_neighbors == 1
    assert potential.config.energy_scale == 1
    assert potential.config.reference_energies == (0, 0)
    assert all(weight.isfinite().all() for weight in potential.parameters())
    assert "no forces in the data" in " ".join(notes)
    assert "no energies in the data" in " ".join(notes)


def test_singular_compositions_are_mentioned():
    water = molecule("H2O")
    water.info["energy"] = -470.0
    config = dataclasses.replace(CONFIG, elements=("H", "O"))
    samples = make_samples([label_atoms(water, KeysConfig())], 3.0)
    _, notes = initial_potential(config, samples, seed=0)
    assert "determine only 1 of 2 reference energies" in " ".join(notes)


@pytest.mark.parametrize(
    ("distance", "feedback"), [(0.8, "network"), (1.0, "none"), (1.6, "network")]
)
def test_signals_have_the_same_size_in_every_layer_on_all_data(carbon_chain, distance, feedback):
    """Products take the third power of what bonded neighbours send: without this they explode."""
    frames = read_frames(carbon_chain, KeysConfig())[::4]  # of either composition
    for frame in frames:
        frame.atoms.positions *= distance
    config = flat_config(
        elements=("H", "C"), cutoff=3.0, channels=8, layers=2, l_max=2, correlation=3,
        charge_feedback=feedback,
    )  # fmt: skip
    samples = make_samples(frames, config.cutoff)
    potential, _ = initial_potential(config, samples, seed=0, dtype=torch.float64)
    seen: dict[torch.nn.Module, list[torch.Tensor]] = {}
    interactions = [m for m in potential.modules() if isinstance(m, Interaction)]
    for part in [linear for module in interactions for linear in (module.mix, module.linear)]:
        part.register_forward_hook(lambda m, _, out: seen.setdefault(m, []).append(out))
    for sample in prepare_samples(samples, potential):
        potential(sample.graph)
    assert len(seen) == 2 * len(interactions) == (6 if feedback == "network" else 4)
    for part, outputs in seen.items():
        for degree in range(part.l_max + 1):
            size = torch.cat(outputs)[:, block(degree)].square().mean().sqrt()
            assert float(size.detach()) == pytest.approx(0.5, rel=1e-6)
