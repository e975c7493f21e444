"""Run folders that an earlier version of phicalc left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phicalc.schema import read_yaml
from phicalc.training import config_from_dict, train
from phicalc.training import run as run_module
from phicalc.upgrades import with_sections

from .conftest import CARBON_CHAIN

#: Killed in its third and last epoch when the settings of models were flat (format 2).
OLD_RUN = CARBON_CHAIN.parent / "formats" / "run_2"
#: Errors of validation when that version finished the same run without interruption.
UNINTERRUPTED = {"energy_rmse": 283.939409253524, "forces_rmse": 1198.0272358660113}


@pytest.fixture
def old_run(tmp_path, monkeypatch) -> Path:
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


@pytest.mark.filterwarnings("ignore:.*without a checksum")
def test_runs_with_flat_settings_are_continued(old_run):
    settings = read_yaml(old_run / "config.yaml")
    settings |= {"model": with_sections(settings["model"]), "output": str(old_run)}
    lines: list[str] = []
    result = train(config_from_dict(settings), base=CARBON_CHAIN.parent, report=lines.append)
    assert any("continuing after 2 epochs" in line for line in lines)
    metrics = result.metrics["valid"]["metrics"]
    for name, value in UNINTERRUPTED.items():
        assert metrics[name] == pytest.approx(value, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*without a checksum")
def test_other_settings_are_refused_for_them_too(old_run):
    settings = read_yaml(old_run / "config.yaml")
    model = with_sections({**settings["model"], "channels": 3})
    settings |= {"model": model, "output": str(old_run)}
    with pytest.raises(ValueError, match=r"model.backbone.channels: 2 → 3"):
        train(config_from_dict(settings), base=CARBON_CHAIN.parent, report=lambda _: None)


def test_their_resolved_settings_name_the_new_places(old_run):
    with pytest.raises(ValueError, match=r"'model.layers' is now 'model.backbone.layers'"):
        config_from_dict(read_yaml(old_run / "config.yaml"))
