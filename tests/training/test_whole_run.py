from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imread

from phicalc.checkpoint import load_model
from phicalc.training import load_config, train
from phicalc.training import run as run_module
from phicalc.training.plots import plot_curves, plot_parity
from phicalc.training.run_folder import RunFolder


def test_training_learns_and_leaves_everything(make_config, tmp_path):
    lines: list[str] = []
    card = {"name": "chain", "license": "MIT", "limits": ["tiny"]}
    config = make_config(max_epochs=24, card=card)
    result = train(config, report=lines.append)
    history = RunFolder(config.output).read_history()
    assert [row["epoch"] for row in history] == list(range(1, 25))
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["valid_forces_rmse"] < 0.5 * history[0]["valid_forces_rmse"]
    folder = tmp_path / "run"
    for name in ("loss.png", "parity.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert load_config(folder / "config.yaml") == config
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == result.metrics
    assert metrics["train"]["units"]["charges"] == "me"
    potential, written = load_model(result.model)
    assert written.name == "chain"
    assert written.limits == ("tiny",)
    assert written.charge_range == (0, 1)
    assert written.metrics["valid"] == metrics["valid"]["metrics"]
    assert written.training["config"]["max_epochs"] == 24
    assert written.data["counts"] == {"train": 24, "valid": 6, "test": 0}
    assert str(tmp_path) not in json.dumps(written.to_dict())
    assert str(Path(__file__).parents[1]) not in json.dumps(written.to_dict())
    assert next(potential.parameters()).dtype == torch.float64
    assert any(line.startswith("epoch 24/24") for line in lines)


def test_the_card_tells_what_dipoles_of_the_atoms_are(
    make_config, settings, few_frames, monkeypatch
):
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    data = {"train": [str(few_frames)], "split": "key"}
    model = {**settings["model"], "atomic_dipoles": True}
    config = make_config(max_epochs=1, card={"limits": ["tiny"]}, model=model, data=data)
    written = load_model(train(config, report=lambda _: None).model)[1]
    assert written.limits[0] == "tiny"
    assert "contains them in an external field only" in written.limits[1]


def test_pictures_show_something(tmp_path, rng):
    label = rng.normal(size=100_000)
    parity = {"energy": (label[:3], label[:3]), "forces": (label, label + 0.1)}
    rows = [
        {"epoch": 1, "lr": 0.01, "train_loss": 2.0, "train_forces_rmse": 5.0},
        {"epoch": 2, "lr": 0.001, "train_loss": 1.0, "train_forces_rmse": 3.0, "valid_loss": 1.5},
    ]
    for path in (plot_parity(parity, tmp_path / "p.png"), plot_curves(rows, tmp_path / "c.png")):
        picture = imread(path)
        assert picture.shape[0] > 300
        assert np.unique(picture[..., 0]).size > 20
