"""The last-layer uncertainty: its algebra, its calibration, and how it gets into models."""

from __future__ import annotations

import json
import shutil

import ase.io
import numpy as np
import pytest
import torch

from phicalc import PhiCalculator
from phicalc.checkpoint import load_model, model_digest, read_card
from phicalc.cli import main
from phicalc.compiled.cache import key
from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.derivatives import predict
from phicalc.inference.uncertainty import ErrorBars
from phicalc.potential import build_potential
from phicalc.schema import dump_yaml
from phicalc.training import add_uncertainty, config_from_dict, train
from phicalc.training import run as run_module
from phicalc.training.dataset import make_samples, prepare_samples
from phicalc.training.uncertainty import (
    RIDGE,
    Reach,
    calibration,
    fit_uncertainty,
    rank_correlation,
)

from ..tiny import flat_config
from .conftest import CARBON_CHAIN, TINY_MODEL


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def samples():
    """Prepare 20 samples to fit, 6 to calibrate and 4 to judge."""
    potential = build_potential(flat_config(**TINY_MODEL), seed=2).double()
    frames = read_frames(CARBON_CHAIN, KeysConfig())
    prepared = prepare_samples(make_samples(frames, potential.cutoff), potential)
    return prepared[:20], prepared[20:26], prepared[26:]


@pytest.fixture(scope="module")
def fitted(samples):
    potential = build_potential(flat_config(**TINY_MODEL), seed=2).double()
    return potential, fit_uncertainty(potential, *samples[:2])


def features_of(potential, samples):
    potential.eval()
    return torch.cat([predict(potential, sample.graph).last_features for sample in samples])


def test_the_energy_is_linear_in_the_last_features(fitted, samples):
    potential, _ = fitted
    prediction = predict(potential.eval(), samples[0][0].graph)
    weights = torch.cat(
        [
            potential.linear_readout.weight * potential.linear_readout.scale,
            potential.readout[-1].weight * potential.readout[-1].scale,
        ]
    )
    energy = potential.config.energy_scale * (prediction.last_features @ weights).sum()
    torch.testing.assert_close(energy.detach()[None], prediction.terms["short_range"])
    assert predict(potential.train(), samples[0][0].graph).last_features is None


def test_deviations_are_those_of_a_linear_fit(fitted, samples):
    potential, _ = fitted
    features = features_of(potential, samples[0])
    matrix = features.T @ features
    matrix += RIDGE * torch.diag(matrix.diagonal())
    graph = samples[2][0].graph
    own = features_of(potential, [samples[2][0]])
    module = potential.uncertainty
    element = potential.element_of_number[graph.atomic_numbers]
    found = ErrorBars(potential)(own, graph.atomic_numbers.numpy())

    def distance(vectors):
        return (vectors * torch.linalg.solve(matrix, vectors.T).T).sum(1).sqrt()

    def close(one, other):
        np.testing.assert_allclose(one, other, rtol=1e-6)

    close(found.energies_std, module.energy_scale * distance(own))
    close(found.energy_std, module.energy_scale * distance(own.sum(0, keepdim=True)).squeeze())
    close(found.forces_std, module.force_scales[element] * distance(own))


def test_errors_have_the_size_that_deviations_let_expect(fitted, samples):
    potential, found = fitted
    assert np.mean((found.energy_error / found.energy_std) ** 2) == pytest.approx(1)
    ratio = (found.force_error**2).sum(1) / found.force_std**2
    elements = torch.cat([sample.graph.atomic_numbers for sample in samples[1]]).numpy()
    for number in np.unique(elements):
        assert ratio[elements == number].mean() == pytest.approx(1)
    assert len(np.unique(elements)) == 2
    errors = [float(predict(potential, s.graph).energy - s.labels.energy) for s in samples[1]]
    np.testing.assert_allclose(found.energy_error, errors)


def test_metrics_are_coverages_and_ranks(fitted):
    _, found = fitted
    metrics = found.metrics()
    share = np.mean(np.abs(found.energy_error) <= 2 * found.energy_std)
    assert metrics["energy_within_2std"] == pytest.approx(share)
    component = np.abs(found.force_error) <= found.force_std[:, None] / np.sqrt(3)
    assert metrics["forces_within_1std"] == pytest.approx(component.mean())
    assert metrics["outside"] == 0
    for name in ("energy within 1σ", "forces within", "0.0% of the structures outside"):
        assert name in found.line()
    assert rank_correlation(np.array([1.0, 5, 2]), np.array([0.1, 90, 3])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 5, 2]), np.array([9, 0.1, 3])) == pytest.approx(-1)


def test_training_structures_do_not_judge_themselves():
    """By Sherman and Morrison, the distance for a fit without the sample itself."""
    features = np.random.default_rng(1).normal(size=(30, 4))
    inverse = np.linalg.inv(features.T @ features)
    alone = np.sqrt(np.einsum("na,ab,nb->n", features, inverse, features))
    nothing = np.zeros(0)
    reach = Reach(nothing, nothing, alone, nothing, nothing, nothing).without_oneself()
    for number in (0, 7):
        others = np.delete(features, number, axis=0)
        inverse = np.linalg.inv(others.T @ others)
        own = features[number]
        assert reach.alone[number] == pytest.approx(np.sqrt(own @ inverse @ own))


def test_outside_are_squeezed_atoms_and_no_others(fitted, samples):
    potential, _ = fitted
    for group in samples:
        assert calibration(potential, group).farthest.max() <= 1
    frames = read_frames(CARBON_CHAIN, KeysConfig())[:2]
    for frame in frames:
        frame.atoms.positions *= 0.7
    squeezed = prepare_samples(make_samples(frames, potential.cutoff), potential)
    assert calibration(potential, squeezed).farthest.min() > 1


def test_without_labels_there_is_no_number(samples):
    potential = build_potential(flat_config(**TINY_MODEL), seed=2).double()
    nan = [
        s._replace(labels=s.labels._replace(energy=s.labels.energy * torch.nan)) for s in samples[1]
    ]
    found = fit_uncertainty(potential, samples[0], nan)
    assert "energy_within_1std" not in found.metrics()
    graph = samples[2][0].graph
    found = ErrorBars(potential)(
        features_of(potential, [samples[2][0]]), graph.atomic_numbers.numpy()
    )
    assert np.isnan(found.energy_std)
    assert np.isnan(found.energies_std).all()
    assert np.isfinite(found.forces_std).all()


def test_batches_do_not_matter(fitted, samples):
    potential, _ = fitted
    whole = calibration(potential, samples[1], 6)
    for one, other in zip(whole, calibration(potential, samples[1], 1), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    bars = ErrorBars(potential.eval())
    found = [
        bars(predict(potential, sample.graph).last_features, sample.graph.atomic_numbers.numpy())
        for sample in samples[1]
    ]
    np.testing.assert_allclose([one.energy_std for one in found], whole.energy_std, rtol=1e-6)
    forces = np.concatenate([one.forces_std for one in found])
    np.testing.assert_allclose(forces, whole.force_std, rtol=1e-6)


def test_nothing_to_fit_is_refused(fitted):
    potential, _ = fitted
    with pytest.raises(ValueError, match="structures that the model was trained on"):
        fit_uncertainty(potential, [], [])
    with pytest.raises(ValueError, match="no uncertainty"):
        calibration(build_potential(potential.config), [])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Models of the same training with and without uncertainty."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {
        "model": flat_config(**TINY_MODEL).to_dict(),
        "max_epochs": 1, "device": "cpu", "compile": False, "batch_size": 4,
    }  # fmt: skip
    frames = ase.io.read(CARBON_CHAIN, ":")
    chosen = [*frames[:4], *frames[12:16], *frames[24:]]
    data = folder / "frames.xyz"
    ase.io.write(data, chosen, format="extxyz")
    settings["data"] = {"train": [str(data)], "split": "key"}
    for name in ("average_neighbors", "energy_scale", "reference_energies"):
        del settings["model"][name]
    found, lines = {}, []
    for wanted in (True, False):
        config = config_from_dict(
            {**settings, "output": str(folder / str(wanted)), "uncertainty": wanted}
        )
        found[wanted] = train(config, report=lines.append)
    return found, data, lines


def test_training_ends_with_the_uncertainty(runs):
    results, _, lines = runs
    potential, card = load_model(results[True].model)
    assert potential.uncertainty is not None
    metrics = card.metrics["uncertainty"]["valid"]
    assert 0 < metrics["forces_within_1std"] <= 1
    assert results[True].metrics["uncertainty"]["valid"] == metrics
    assert sum("uncertainty, valid set" in line for line in lines) == 1
    without, other = load_model(results[False].model)
    assert without.uncertainty is None
    assert "uncertainty" not in other.metrics
    weights = without.state_dict()
    for name, tensor in potential.state_dict().items():
        assert name.startswith("uncertainty.") or torch.equal(tensor, weights[name])


def test_digests(runs):
    """That of the model covers it; compiled functions, which it does not enter, are shared."""
    results = runs[0]
    potential, _ = load_model(results[True].model)
    without, _ = load_model(results[False].model)
    assert model_digest(potential) != model_digest(without)
    assert model_digest(potential, uncertainty=False) == model_digest(without)
    assert key(potential, "x") == key(without, "x")
    before = model_digest(potential)
    potential.uncertainty.bounds += 1
    assert model_digest(potential) != before


def test_a_model_gets_one_later(runs, tmp_path, capsys):
    """From the files that its card records, or from files that are named."""
    results, data, _ = runs
    plain, _ = load_model(results[False].model)
    expected, _ = load_model(results[True].model)
    for name, options in (
        ("recorded", {}),
        ("named", {"train": [data], "valid": [data]}),
    ):
        folder = tmp_path / name
        shutil.copytree(results[False].model, folder)
        shutil.copy(data, folder)
        add_uncertainty(folder, **options, device="cpu", report=quiet)
        potential, card = load_model(folder)
        assert "uncertainty" in card.metrics
        for key_, tensor in plain.state_dict().items():
            assert torch.equal(potential.state_dict()[key_], tensor)
        if name == "recorded":
            torch.testing.assert_close(
                potential.uncertainty.state_dict(), expected.uncertainty.state_dict()
            )
    atoms = ase.io.read(data, "0")
    energies = []
    for model in (results[False].model, folder):
        atoms.calc = PhiCalculator(model, device="cpu", compile=False)
        energies.append((atoms.get_potential_energy(), atoms.get_forces().tobytes()))
    assert energies[0] == energies[1]


def test_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results, data, _ = runs
    arguments = ["uncertainty", str(results[False].model), "--output", str(tmp_path / "new")]
    assert main([*arguments, "--train", str(data), "--valid", str(data), "--device", "cpu"]) == 0
    assert "within 1σ" in capsys.readouterr().out
    assert "uncertainty" in read_card(tmp_path / "new").metrics
    assert "uncertainty" not in read_card(results[False].model).metrics
    assert main(arguments) == 2  # the data are not beside the model
    assert "was not found" in capsys.readouterr().err
    assert main(["predict", str(data), "--model", str(tmp_path / "new"), "--output", "x.xyz"]) == 0
    assert main(["predict", str(data), "--model", str(tmp_path / "new"), "--output", "x.json"]) == 0
    heads, line, *_ = capsys.readouterr().out.splitlines()
    assert heads.split()[-4:] == ["max", "σ_F", "(eV/Å)", "outside"]
    frame = ase.io.read("x.xyz", "0")
    assert f"{frame.info['energy_std']:.4f}" in line.split()
    assert f"{frame.arrays['forces_std'].max():.4f}" in line.split()
    assert line.split()[-1] == f"{frame.arrays['outside'].sum()}"
    assert frame.arrays["energies_std"].shape == (len(frame),)


def test_other_data_than_those_of_the_training_are_refused(runs, tmp_path):
    results, data, _ = runs
    folder = tmp_path / "model"
    shutil.copytree(results[False].model, folder)
    ase.io.write(folder / data.name, ase.io.read(data, "1:"), format="extxyz")
    with pytest.raises(ValueError, match=r"not the files that model '\w+' was trained on"):
        add_uncertainty(folder, device="cpu", report=quiet)
    card = json.loads((folder / "card.json").read_text())
    assert "uncertainty" not in card["metrics"]


def test_fine_tuning_starts_without_that_of_the_parent(runs, tmp_path):
    results, data, _ = runs
    settings = {
        "init": str(results[True].model), "output": str(tmp_path / "tuned"), "max_epochs": 1,
        "data": {"train": [str(data)], "split": "key"}, "device": "cpu", "compile": False,
        "uncertainty": False,
    }  # fmt: skip
    (tmp_path / "tune.yaml").write_text(dump_yaml(settings))
    assert main(["train", str(tmp_path / "tune.yaml")]) == 0
    assert load_model(tmp_path / "tuned" / "model")[0].uncertainty is None
