"""Error bars of calculators: the same numbers everywhere, and results as they are without."""

from __future__ import annotations

import copy

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.calculator import InputError, PropertyNotImplementedError

from phicalc import CommitteeCalculator, PhiCalculator
from phicalc.checkpoint import ModelCard, load_model, save_model
from phicalc.inference.concerns import DomainError, DomainWarning
from phicalc.md import MDConfig, run_md
from phicalc.potential import build_potential
from phicalc.structures import evaluate_structures, snapshot, water_box
from phicalc.uncertainty import LastLayerUncertainty

from .tiny import flat_config

NAMES = ("energy_std", "energies_std", "forces_std")


def uncertain_potential(seed=1, bound=1e3):
    """Random weights, and an uncertainty of random numbers."""
    config = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1
    )
    potential = build_potential(config, seed=seed).double()
    module = LastLayerUncertainty(potential.n_last, 2).double()
    module.whitening.copy_(
        torch.randn(potential.n_last, potential.n_last, generator=torch.Generator().manual_seed(2))
    )
    module.energy_scale.fill_(0.3)
    module.force_scales.copy_(torch.tensor([0.5, 0.7]))
    module.bounds.fill_(bound)
    potential.uncertainty = module
    return potential


@pytest.fixture(scope="module")
def potential():
    return uncertain_potential()


def calculator(potential, **parameters):
    return PhiCalculator(potential, device="cpu", dtype="float64", compile=False, **parameters)


def test_results_are_the_same_bits_without(potential):
    plain = copy.deepcopy(potential)
    plain.uncertainty = None
    for atoms in (molecule("H2O"), water_box(3, density=0.8)):
        found = []
        for calc in (
            calculator(potential), calculator(potential, uncertainty=False), calculator(plain)
        ):  # fmt: skip
            atoms.calc = calc
            results = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_charges()
            found.append([np.asarray(each).tobytes() for each in results])
            found[-1].append({k: np.asarray(v).tobytes() for k, v in calc.results.items()})
        assert found[0] == found[1] == found[2]


def test_numbers_are_those_of_the_last_layer(potential):
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    atoms.calc = calculator(potential)
    found = atoms.calc.get_uncertainty(atoms)
    features = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        for module in (atoms.calc.potential.linear_readout, atoms.calc.potential.readout[-1])
    ]
    atoms.calc.reset()
    atoms.get_forces()
    for hook in hooks:
        hook.remove()
    white = torch.cat(features, dim=1).detach() @ potential.uncertainty.whitening
    np.testing.assert_allclose(found.energies_std, 0.3 * white.norm(dim=1))
    np.testing.assert_allclose(found.energy_std, 0.3 * white.sum(0).norm())
    scales = np.where(atoms.numbers == 1, 0.5, 0.7)
    np.testing.assert_allclose(found.forces_std, scales * white.norm(dim=1).numpy())
    np.testing.assert_allclose(found.distance, white.norm(dim=1) / 1e3)
    assert not found.outside.any()


def test_it_follows_the_structure(potential):
    atoms = molecule("H2O")
    atoms.calc = calculator(potential)
    first = atoms.calc.get_uncertainty(atoms)
    assert atoms.calc.get_uncertainty() is first
    atoms.positions[1] += 0.1
    assert atoms.calc.get_uncertainty(atoms).energy_std != first.energy_std
    assert set(atoms.calc.results) <= set(atoms.calc.implemented_properties)
    atoms.calc.reset()
    assert atoms.calc.deviations == {}


def test_without_one_the_error_says_how_to_get_it(potential):
    plain = copy.deepcopy(potential)
    plain.uncertainty = None
    atoms = molecule("H2O")
    atoms.calc = calculator(plain)
    with pytest.raises(PropertyNotImplementedError, match="`phicalc uncertainty MODEL` adds one"):
        atoms.calc.get_uncertainty(atoms)
    atoms.calc = calculator(potential, uncertainty=False)
    with pytest.raises(PropertyNotImplementedError, match=r"calc\.set\(uncertainty=True\)"):
        atoms.calc.get_uncertainty(atoms)
    atoms.get_forces()
    assert atoms.calc.deviations == {}
    atoms.calc.set(uncertainty=True)
    assert atoms.calc.get_uncertainty(atoms).energy_std > 0
    with pytest.raises(InputError, match="uncertainty must be True or False, got 'yes'"):
        calculator(potential, uncertainty="yes")
    with pytest.raises(InputError, match="no structure yet"):
        calculator(potential).get_uncertainty()


def test_batches_give_the_same(potential):
    frames = [molecule("H2O"), molecule("H2O2"), water_box(2, density=0.8), molecule("H2O")]
    frames[3].rattle(0.1, seed=2)
    batch = calculator(potential).batch(frames)
    for atoms, results in zip(frames, batch, strict=True):
        calc = calculator(potential)
        found = calc.get_uncertainty(atoms)
        for name in NAMES:
            np.testing.assert_allclose(results[name], getattr(found, name), rtol=1e-9)
        assert results["outside"].tolist() == [False] * len(atoms)
    assert "energy_std" not in calculator(potential, uncertainty=False).batch(frames[:2])[0]
    for atoms in evaluate_structures(frames, calculator(potential)):
        assert atoms.info["energy_std"] > 0
        assert atoms.arrays["outside"].shape == atoms.arrays["forces_std"].shape == (len(atoms),)


def test_single_precision_agrees(potential):
    atoms = water_box(3, density=0.8)
    exact = calculator(potential).get_uncertainty(atoms)
    single = PhiCalculator(potential, device="cpu", compile=False).get_uncertainty(atoms)
    for name in (*NAMES, "distance"):
        np.testing.assert_allclose(getattr(single, name), getattr(exact, name), rtol=1e-4)


def test_atoms_outside_are_named_once():
    atoms = molecule("H2O")
    atoms.calc = calculator(uncertain_potential(bound=1e-3))
    with pytest.warns(DomainWarning, match=r"atom \d \((O|H)\) .*\(3 atoms are outside\)") as found:
        atoms.get_potential_energy()
    assert len(found) == 1
    uncertainty = atoms.calc.get_uncertainty()
    assert uncertainty.outside.all()
    atom = int(uncertainty.distance.argmax())
    assert f"atom {atom} ({atoms.symbols[atom]}) has" in str(found[0].message)
    atoms.positions += np.random.default_rng(1).normal(size=(3, 3)) * 0.01
    atoms.get_potential_energy()  # warnings are errors here
    atoms.calc = calculator(uncertain_potential(bound=1e-3), strict=True)
    with pytest.raises(DomainError, match="unlike the training data"):
        atoms.get_potential_energy()
    atoms.calc = calculator(uncertain_potential(bound=1e-3), strict=True, uncertainty=False)
    atoms.get_potential_energy()


def test_committees_use_the_same_names(potential):
    members = [uncertain_potential(1), uncertain_potential(2), uncertain_potential(3, bound=1e-3)]
    atoms = molecule("H2O")
    atoms.calc = CommitteeCalculator(members, device="cpu", dtype="float64", compile=False)
    with pytest.warns(DomainWarning, match="3 atoms are outside"):
        atoms.get_forces()
    found = atoms.calc.get_uncertainty()
    spread = atoms.calc.committee_results
    for name in NAMES:
        np.testing.assert_array_equal(getattr(found, name), spread[name])
    assert isinstance(found.energy_std, float)
    energies = [calculator(m).batch([atoms])[0]["energies"] for m in members[:2]]
    energies.append(calculator(members[2], uncertainty=False).batch([atoms])[0]["energies"])
    np.testing.assert_allclose(found.energies_std, np.std(energies, axis=0, ddof=1))
    assert not found.outside.any()  # one of three
    assert not atoms.calc.batch([atoms])[0]["outside"].any()
    for member in members:
        member.uncertainty = None
    atoms.calc = CommitteeCalculator(members, device="cpu", dtype="float64", compile=False)
    found = atoms.calc.get_uncertainty(atoms)
    assert found.distance is None
    assert found.outside.tolist() == [False] * 3
    assert "outside" not in atoms.calc.batch([atoms])[0]


def test_models_on_disk_keep_it(potential, tmp_path):
    card = save_model(tmp_path, potential, ModelCard(name="x"))
    loaded, _ = load_model(tmp_path)
    for name, tensor in potential.uncertainty.state_dict().items():
        assert torch.equal(loaded.uncertainty.state_dict()[name], tensor)
    other = copy.deepcopy(potential)
    other.uncertainty.energy_scale += 1
    assert save_model(tmp_path, other, ModelCard(name="x")).sha256 != card.sha256
    other.uncertainty.bounds[0] = torch.nan
    with pytest.raises(ValueError, match=r"not finite: uncertainty\.bounds"):
        save_model(tmp_path, other, ModelCard(name="x"))
    other.uncertainty = LastLayerUncertainty(potential.n_last + 1, 2).double()
    save_model(tmp_path, other, ModelCard(name="x"))
    with pytest.raises(ValueError, match=r"uncertainty\.whitening \(expected"):
        load_model(tmp_path)


def test_snapshots_and_trajectories_hold_it(potential, tmp_path):
    atoms = molecule("H2O")
    atoms.calc = calculator(potential)
    assert "energy_std" not in snapshot(atoms).info  # nothing was computed
    atoms.get_forces()
    copied = snapshot(atoms)
    found = atoms.calc.get_uncertainty()
    assert copied.info["energy_std"] == found.energy_std
    np.testing.assert_array_equal(copied.arrays["energies_std"], found.energies_std)
    config = MDConfig(ensemble="nve", steps=4, timestep=0.1, trajectory_interval=2, seed=1)
    run_md(atoms, config, tmp_path / "run")
    for frame in ase.io.read(tmp_path / "run" / "trajectory.extxyz", ":"):
        calc = calculator(potential)
        again = calc.get_uncertainty(frame)
        np.testing.assert_allclose(frame.arrays["energies_std"], again.energies_std, rtol=1e-3)
        np.testing.assert_allclose(frame.arrays["forces_std"], again.forces_std, rtol=1e-3)
        assert frame.info["energy_std"] == pytest.approx(again.energy_std, rel=1e-3)
