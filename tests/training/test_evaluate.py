from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.derivatives import predict
from phicalc.graph import from_ase
from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.response import born_effective_charges
from phicalc.training import evaluate_model
from phicalc.training.dataset import make_samples, prepare_samples
from phicalc.training.evaluate import evaluate_samples

from ..tiny import flat_config


@pytest.fixture
def potential() -> Potential:
    config = flat_config(
        elements=("H", "C"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=2
    )
    return build_potential(config, seed=2).double()


def quiet(_: str) -> None:
    pass


def test_errors_are_those_computed_by_hand(potential, carbon_chain):
    result = evaluate_model(potential, carbon_chain, device="cpu", max_frames=5, report=quiet)
    images = ase.io.read(carbon_chain, ":5")
    predictions = [predict(potential, potential.prepare(from_ase(a, 3.0))) for a in images]
    energy = [
        (p.energy.item() - a.get_potential_energy()) / len(a)
        for p, a in zip(predictions, images, strict=True)
    ]
    forces = np.concatenate(
        [p.forces.numpy() - a.get_forces() for p, a in zip(predictions, images, strict=True)]
    )
    charges = np.concatenate(
        [p.charges.numpy() - a.get_charges() for p, a in zip(predictions, images, strict=True)]
    )
    dipole = np.array(
        [
            p.charges.numpy() @ a.positions - a.get_dipole_moment()
            for p, a in zip(predictions, images, strict=True)
        ]
    )  # neutral molecules: no origin
    metrics = result["metrics"]
    for name, error in (
        ("energy", energy), ("forces", forces), ("charges", charges), ("dipole", dipole),
    ):  # fmt: skip
        assert metrics[f"{name}_mae"] == pytest.approx(1e3 * np.abs(error).mean(), rel=1e-7)
        rmse = 1e3 * np.sqrt(np.mean(np.square(error)))
        assert metrics[f"{name}_rmse"] == pytest.approx(rmse, rel=1e-7)
    carbon = np.concatenate([a.symbols == "C" for a in images])
    by_element = result["forces_rmse_by_element"]
    assert by_element["C"] == pytest.approx(1e3 * np.sqrt(np.mean(forces[carbon] ** 2)))
    predicted = np.concatenate([p.charges.numpy() for p in predictions])
    assert result["charges_by_element"]["C"]["mean"] == pytest.approx(predicted[carbon].mean())
    assert result["n_structures"] == 5


@pytest.mark.parametrize("head", [{"head": "latent"}, {"atomic_dipoles": True}])
def test_born_charges_are_compared_where_there_are_labels(potential, carbon_chain, head):
    config = PotentialConfig.from_dict({**potential.config.to_dict(), **head})
    potential = build_potential(config, seed=2).double()
    images = ase.io.read(carbon_chain, ":3")
    found = [
        born_effective_charges(potential, potential.prepare(from_ase(a, 3.0))).numpy()
        for a in images
    ]
    shifts = (0.1, -0.3)
    for atoms, born, shift in zip(images, found, shifts, strict=False):
        displacement_first = born.transpose(0, 2, 1) + shift
        atoms.arrays["bec"] = displacement_first.reshape(len(atoms), 9)
    result = evaluate_model(potential, images, device="cpu", report=quiet)
    counts = [len(atoms) for atoms in images[:2]]
    rmse = np.sqrt(np.average(np.square(shifts), weights=counts))
    assert result["metrics"]["born_charges_rmse"] == pytest.approx(rmse, rel=1e-7)
    assert result["units"]["born_charges"] == "e"
    images[0].arrays["bec"] = np.zeros((len(images[0]), 8))
    with pytest.raises(ValueError, match=r"structure 0: born_charges must have the shape"):
        evaluate_model(potential, images, device="cpu", report=quiet)


@pytest.mark.parametrize(
    ("head", "n_members", "left_out"),
    [
        ("acks2", 1, {"polarizability": 1, "born charges": 0, "dipole": 1, "stress": 1}),
        ("qeq", 1, {"polarizability": 1, "born charges": 1}),
        ("latent+links", 1, {"polarizability": 2, "born charges": 0, "charges": 0}),
        ("none", 1, {"polarizability": 2, "born charges": 2, "charges": 2, "dipole": 2}),
        ("acks2", 2, {"polarizability": 2, "born charges": 2, "charges": 0}),
    ],
)
def test_labels_that_are_left_out_are_said_to_be(head, n_members, left_out, rng):
    config = flat_config(
        elements=("H", "C"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1, head=head
    )
    images = [Atoms("CH", [[0, 0, 0], [0, 0, 1.1]], cell=[4, 4, 4], pbc=pbc) for pbc in (0, 1)]
    for atoms in images:
        atoms.info |= {"energy": -1.0, "dipole": rng.normal(size=3), "stress": np.zeros(6)}
        atoms.info["polarizability"] = np.eye(3)
        atoms.arrays |= {"charges": np.array([0.1, -0.1]), "bec": np.zeros((2, 9))}
    members = [build_potential(config, seed=seed).double() for seed in range(n_members)]
    said: list[str] = []
    evaluate_model(members, images, device="cpu", report=said.append)
    for label, count in left_out.items():
        notes = [line for line in said if line.startswith(f"{label}: ")]
        assert len(notes) == bool(count), (label, notes)
        assert all(f"{count} of 2 labels left out" in note for note in notes)


def test_names_of_labels_that_nobody_has_are_said(potential, carbon_chain):
    keys = KeysConfig(charges="mulliken", polarizability="alpha", total_charge="q_tot")
    said: list[str] = []
    images = ase.io.read(carbon_chain, ":2")
    evaluate_model(potential, images, keys=keys, device="cpu", report=said.append)
    for text in ("charges", "polarizability", "a total charge"):
        (note,) = [line for line in said if line.startswith(f"no structure has {text} under")]
        assert ("neutral" in note) == (text == "a total charge")


def test_responses_that_are_no_numbers_are_errors(potential, carbon_chain, monkeypatch):
    atoms = ase.io.read(carbon_chain, "0")
    atoms.arrays["bec"] = np.zeros((len(atoms), 9))
    nothing = torch.full((len(atoms), 3, 3), float("nan"), dtype=torch.float64)
    monkeypatch.setattr(
        "phicalc.training.evaluate.born_effective_charges", lambda *_: nothing.clone()
    )
    result = evaluate_model(potential, [atoms], device="cpu", report=quiet)
    assert result["metrics"]["born_charges_mae"] == float("inf")


def test_batch_size_changes_nothing(potential, carbon_chain):
    results = [
        evaluate_model(potential, carbon_chain, batch_size=size, report=quiet)["metrics"]
        for size in (1, 4, 30)
    ]
    assert results[1] == pytest.approx(results[0], rel=1e-9)
    assert results[2] == pytest.approx(results[0], rel=1e-9)


def test_perfect_model_has_no_errors_stress_included(rng):
    config = flat_config(elements=("Na", "Cl"), cutoff=3.5, layers=1, channels=4, l_max=1)
    potential = build_potential(config, seed=2).double()
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, rng=rng)
    single = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]])  # open, without a stress, in the same set
    for structure in (atoms, single):
        graph = potential.prepare(from_ase(structure, 3.5))
        prediction = predict(potential, graph, stress=bool(structure.pbc.all()))
        structure.info["energy"] = prediction.energy.item()
        structure.arrays["forces"] = prediction.forces.numpy()
        if prediction.stress is not None:
            structure.info["stress"] = prediction.stress[0].numpy()
    metrics = evaluate_model(potential, [single, atoms, single], report=quiet)["metrics"]
    assert set(metrics) == {
        f"{name}_{kind}" for name in ("energy", "forces", "stress") for kind in ("mae", "rmse")
    }
    assert max(metrics.values()) < 1e-8


def test_results_are_printed_and_saved(potential, carbon_chain, tmp_path):
    lines: list[str] = []
    result = evaluate_model(potential, carbon_chain, tmp_path / "out", report=lines.append)
    saved = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert saved == result
    assert (tmp_path / "out" / "parity.png").read_bytes().startswith(b"\x89PNG")
    forces = next(line for line in lines if line.startswith("forces "))
    assert f"{result['metrics']['forces_rmse']:.3f} meV/Å" in forces


def test_precision_can_be_chosen(potential, carbon_chain):
    double = evaluate_model(potential, carbon_chain, max_frames=2, report=quiet)
    single = evaluate_model(potential, carbon_chain, max_frames=2, dtype="float32", report=quiet)
    assert single["metrics"] != double["metrics"]
    assert single["metrics"] == pytest.approx(double["metrics"], rel=1e-3)


def test_wrong_data_are_refused(potential):
    with pytest.raises(ValueError, match="structure 1: the model does not know N, O"):
        evaluate_model(potential, [Atoms("H"), Atoms("NO")], report=quiet)
    with pytest.raises(ValueError, match="no structures"):
        evaluate_model(potential, [], report=quiet)
    with pytest.raises(ValueError, match="no labels to compare"):
        evaluate_model(potential, [Atoms("H")], report=quiet)
    with pytest.raises(ValueError, match="structure 1 has no atoms; remove"):
        evaluate_model(potential, [Atoms("H"), Atoms()], report=quiet)
    with pytest.raises(FileNotFoundError, match=r"none.xyz"):
        evaluate_model(potential, "none.xyz", report=quiet)


def test_labels_under_other_names(potential):
    atoms = Atoms("CH", [[0, 0, 0], [0, 0, 1.1]])
    atoms.info["E"] = 1.0
    result = evaluate_model(potential, [atoms], keys=KeysConfig(energy="E"), report=quiet)
    assert "energy_mae" in result["metrics"]
    assert torch.is_grad_enabled()


def test_the_potential_of_the_caller_stays_as_it_is(potential, carbon_chain):
    before = potential.dtype
    other = "float32" if before == torch.float64 else "float64"
    evaluate_model(potential, carbon_chain, dtype=other, report=quiet)
    assert potential.dtype == before


def test_parity_shows_energies_less_what_the_composition_explains(potential, tmp_path):
    """Molecules of several compositions differ by keV; the picture shows the meV."""
    frames = []
    rng = np.random.default_rng(1)
    for n_carbon, n_hydrogen in ((1, 4), (2, 2), (2, 6), (3, 4)):
        for _ in range(3):
            positions = rng.uniform(0, 4, (n_carbon + n_hydrogen, 3))
            atoms = Atoms(f"C{n_carbon}H{n_hydrogen}", positions)
            energy = -1000.0 * n_carbon - 13.0 * n_hydrogen + rng.normal(0, 0.01)
            atoms.calc = SinglePointCalculator(
                atoms, energy=energy, forces=np.zeros_like(positions)
            )
            frames.append(atoms)
    ase.io.write(tmp_path / "mixed.xyz", frames)
    labelled = read_frames(tmp_path / "mixed.xyz", KeysConfig())
    samples = prepare_samples(make_samples(labelled, potential.cutoff), potential)
    label, _ = evaluate_samples(potential, samples).parity["energy"]
    assert np.ptp(label) < 0.05
