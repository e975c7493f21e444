"""Training that starts from the weights of a model."""

from __future__ import annotations

import shutil
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch

from phicalc.checkpoint import load_model, read_card
from phicalc.data.files import read_frames
from phicalc.training import config_from_dict, train, train_committee
from phicalc.training import run as run_module
from phicalc.training.dataset import make_samples, prepare_samples
from phicalc.training.initialization import inherited_potential
from phicalc.training.run_folder import RunFolder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)


def quiet(_: str) -> None:
    pass


@pytest.fixture
def settings(settings, few_frames):
    """Nothing is learned here but where a training starts."""
    return settings | {"data": {"train": [str(few_frames)], "split": "key"}}


@pytest.fixture
def parent(make_config, tmp_path):
    """Folder of a model trained for a moment."""
    return str(train(make_config(max_epochs=1, output=str(tmp_path / "parent")), None, quiet).model)


def test_weights_are_those_of_the_parent_and_its_digest_is_on_the_card(make_config, parent):
    lines: list[str] = []
    idle = {"optimizer": {"lr": 1e-300, "ema_decay": 0.0}, "max_epochs": 1}
    result = train(make_config(init=parent, **idle), report=lines.append)
    old, new = (load_model(folder)[0] for folder in (parent, result.model))
    for one, other in zip(old.parameters(), new.parameters(), strict=True):
        assert torch.equal(one, other)
    card = read_card(parent)
    assert read_card(result.model).training["parent"] == {"name": "parent", "sha256": card.sha256}
    assert any("starting from the weights of parent (SHA-256 " in line for line in lines)
    history = RunFolder(parent[: -len("/model")]).read_history()
    before = min(row["valid_forces_rmse"] for row in history)
    assert result.metrics["valid"]["metrics"]["forces_rmse"] == pytest.approx(before, rel=0.02)


def test_other_levels_of_theory_are_shifted_and_absent_elements_keep_their_energies(
    make_config, parent, carbon_chain, tmp_path
):
    images = ase.io.read(carbon_chain, ":")
    for atoms in images:
        count = np.array([(atoms.numbers == z).sum() for z in (1, 6)])
        atoms.calc.results["energy"] += count @ [-3.0, 1000.0]
    ase.io.write(tmp_path / "shifted.xyz", images, format="extxyz")
    config = make_config()
    found = {}
    for name in (str(carbon_chain), str(tmp_path / "shifted.xyz")):
        samples = make_samples(read_frames(name, config.data.keys), config.model.cutoff)
        potential, notes = inherited_potential(parent, config.model, samples, dtype=torch.float64)
        assert any("reference energies" in note for note in notes)
        found[name] = np.array(potential.config.reference_energies)
        for sample in prepare_samples(samples[:2], potential):  # the element energies are in place
            error = potential(sample.graph).energy - sample.labels.energy
            assert abs(float(error.detach())) < 12
    one, other = found.values()
    np.testing.assert_allclose(other - one, [-3.0, 1000.0], atol=1e-6)
    given = {"H": -1.0, "C": -2.0}
    potential, _ = inherited_potential(parent, config.model, samples, given_references=given)
    assert potential.config.reference_energies == (-1.0, -2.0)


def test_continued_run_needs_its_parent_no_more(make_config, parent, tmp_path, monkeypatch):
    config = make_config(init=parent, checkpoint={"every_steps": 1})

    def kill(self, row):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", kill)
    with pytest.raises(KeyboardInterrupt):
        train(config, report=quiet)
    monkeypatch.undo()
    digest = read_card(parent).sha256
    (tmp_path / "parent" / "model").rename(tmp_path / "parent" / "gone")
    assert read_card(train(config, report=quiet).model).training["parent"]["sha256"] == digest


def test_another_network_or_new_elements_are_refused(make_config, settings, parent):
    backbone = {**settings["model"]["backbone"], "channels": 6}
    model = {**settings["model"], "backbone": backbone}
    with pytest.raises(ValueError, match="another network: model.backbone.channels is 6, the par"):
        train(make_config(init=parent, model=model), report=quiet)
    with pytest.raises(ValueError, match=r"model.head.name is 'acks2', the parent's 'qeq'\."):
        train(make_config(init=parent, model={**settings["model"], "head": "acks2"}), report=quiet)
    config = make_config(init=parent)
    more = replace(config.model, elements=("H", "C", "O"), reference_energies=())
    with pytest.raises(ValueError, match=r"elements is \['H', 'C', 'O'\].*cannot learn new"):
        inherited_potential(parent, more, [])
    with pytest.raises(FileNotFoundError, match="no model 'nothing'"):
        train(make_config(init="nothing"), report=quiet)


def test_committee_differs_in_its_seeds_only(make_config, tmp_path):
    config = make_config(max_epochs=1, seed=7)
    results = train_committee(config, 2, report=quiet)
    assert [r.model.parent.name for r in results] == ["member_0", "member_1"]
    weights = [next(load_model(r.model)[0].parameters()) for r in results]
    assert not torch.equal(*weights)
    cards = [read_card(r.model) for r in results]
    assert [card.training["config"]["seed"] for card in cards] == [7, 8]
    assert cards[0].data == cards[1].data
    assert (tmp_path / "run" / "committee.json").is_file()
    alone = train(replace(config, output=str(tmp_path / "alone")), report=quiet)
    assert read_card(alone.model).sha256 == cards[0].sha256
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        train_committee(config, 1, report=quiet)


@pytest.mark.parametrize("given", [None, {}, {"elements": ["H", "C"]}])
def test_what_the_model_block_leaves_out_is_the_parents(given, settings, parent):
    chosen = {**settings, "init": parent, "model": given}
    config = config_from_dict({key: v for key, v in chosen.items() if v is not None})
    parents = read_card(parent).potential
    assert config.model.backbone.to_settings() == parents["backbone"]
    assert config.model.cutoff == parents["cutoff"] == 3.0
    assert config.model.reference_energies == (0.0, 0.0)  # those are fitted
    result = train(replace(config, max_epochs=1), report=quiet)
    assert load_model(result.model)[0].config.backbone == config.model.backbone


def test_contradictions_to_the_parent_are_named(settings, parent):
    config = config_from_dict({**settings, "init": parent, "model": {"cutoff": 4.0}})
    with pytest.raises(ValueError, match=r"model.cutoff is 4.0, the parent's 3.0"):
        train(config, report=quiet)


def test_a_begun_run_finds_the_model_block_without_its_parent(settings, parent):
    chosen = {**settings, "init": parent, "model": {}}
    config = config_from_dict(chosen)
    train(config, report=quiet)
    shutil.rmtree(parent)
    assert config_from_dict(chosen) == config
    with pytest.raises(FileNotFoundError, match="parent"):
        config_from_dict({**chosen, "output": parent})
