"""The first forces of training are of the order of those of the data."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.card import ModelCard
from phicalc.checkpoint import read_card, save_model
from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.data.frames import LabelledAtoms, label_atoms
from phicalc.derivatives import predict
from phicalc.potential import Potential, PotentialConfig
from phicalc.training.dataset import Sample, make_samples, prepare_samples
from phicalc.training.initialization import inherited_potential, initial_potential

from ..tiny import flat_config


def labelled(atoms: Atoms, force: float) -> LabelledAtoms:
    """Rattled atoms with forces of that size (eV/Å) as their labels."""
    atoms.rattle(0.1, seed=1)
    forces = force * torch.randn(len(atoms), 3, generator=torch.Generator().manual_seed(2)).double()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces.numpy())
    return label_atoms(atoms, KeysConfig())


FRAMES = {
    "molecules": ([molecule(name) for name in ("CH3COOH", "C6H6", "CH3OH", "H2O")], 2.0),
    "crystal": ([bulk("NaCl", "rocksalt", a=5.6).repeat(2)], 0.3),
}


def started(kind: str, head: str, seed: int) -> tuple[Potential, list[Sample]]:
    """Return a potential before its first step, and the samples that it was made for."""
    frames, force = FRAMES[kind]
    config = flat_config(
        elements=("H", "C", "O") if kind == "molecules" else ("Na", "Cl"),
        cutoff=4.5, layers=2, channels=16, l_max=2, correlation=3, head=head,
    )  # fmt: skip
    samples = make_samples([labelled(atoms.copy(), force) for atoms in frames], config.cutoff)
    potential = initial_potential(config, samples, seed=seed, dtype=torch.float64)[0]
    return potential, prepare_samples(samples, potential)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("head", ["none", "qeq", "acks2", "latent", "solve+coulomb+links"])
@pytest.mark.parametrize("kind", FRAMES)
def test_first_forces_are_of_the_size_of_the_labels(kind, head, seed):
    potential, samples = started(kind, head, seed)
    found = [predict(potential, s.graph).forces for s in samples]
    size = float(torch.cat(found).square().mean().sqrt())
    limit = max(5 * FRAMES[kind][1], 5.0)  # eV/Å; charges of their own make those of salts larger
    assert size < limit


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("kind", "cation", "anion"), [("molecules", 1, 8), ("crystal", 11, 17)])
def test_latent_charges_start_with_the_signs_of_nature(kind, cation, anion, seed):
    potential, samples = started(kind, "latent", seed)
    for sample in samples:
        charges, numbers = predict(potential, sample.graph).charges, sample.graph.atomic_numbers
        if bool((numbers == anion).any()):
            assert float(charges[numbers == cation].mean()) > 0 > charges[numbers == anion].mean()


@pytest.mark.parametrize("inner", [True, False])
def test_training_fills_nearest_distances_in(carbon_chain, inner):
    samples = make_samples(read_frames(carbon_chain, KeysConfig()), 3.0)[:3]
    config = flat_config(
        elements=("H", "C"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1,
        head="none", inner_envelope=inner,
    )  # fmt: skip
    potential, _ = initial_potential(config, samples, seed=1)
    found = potential.config.backbone.settings.nearest_distances
    if not inner:
        assert found is None
        return
    positions = [sample.graph.positions[sample.graph.atomic_numbers == 6] for sample in samples]
    shortest = min(float(torch.pdist(p).min()) for p in positions)
    assert found["C-C"] == pytest.approx(shortest, abs=1e-4)
    assert set(found) == {"H-C", "C-C"}


def test_what_is_trained_further_sees_lengths_that_are_shorter_than_its_parents(
    carbon_chain, tmp_path
):
    frames = read_frames(carbon_chain, KeysConfig())[:3]
    config = flat_config(
        elements=("H", "C"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1,
        head="none", inner_envelope=True,
    )  # fmt: skip
    samples = make_samples(frames, 3.0)
    parent, _ = initial_potential(config, samples, seed=1, dtype=torch.float64)
    save_model(tmp_path, parent, ModelCard(name="parent"))
    config = PotentialConfig.from_dict(read_card(tmp_path).potential)
    squeezed = frames[0].atoms.copy()
    squeezed.positions *= 0.9
    squeezed.calc = SinglePointCalculator(squeezed, energy=0.0, forces=0 * squeezed.positions)
    more = make_samples([label_atoms(squeezed, KeysConfig())], 3.0)
    child, _ = inherited_potential(str(tmp_path), config, more, dtype=torch.float64)
    old, new = (p.config.backbone.settings.nearest_distances for p in (parent, child))
    assert all(new[pair] == pytest.approx(0.9 * old[pair], rel=0.05) for pair in old)
    unchanged, _ = inherited_potential(str(tmp_path), config, samples, dtype=torch.float64)
    assert unchanged.config.backbone.settings.nearest_distances == old
    for sample in prepare_samples(samples, parent):  # no length of theirs is below the nearest
        one, other = (predict(p.eval(), sample.graph).forces for p in (parent, child))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    held, seen = (predict(p.eval(), more[0].graph).forces for p in (parent, child))
    assert float((held - seen).abs().max()) > 1e-3
