"""Small data and small configurations for training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import pytest

from phicalc.training import TrainingConfig, config_from_dict
from phicalc.upgrades import with_sections

CARBON_CHAIN = Path(__file__).parents[1] / "data" / "xtb_carbon_chain_30.xyz"

#: In short: see `tests.tiny.flat_config`.
TINY_MODEL = {
    "elements": ["H", "C"],
    "cutoff": 3.0,
    "layers": 1,
    "channels": 4,
    "l_max": 1,
    "correlation": 2,
    "radial_basis": 4,
}


@pytest.fixture
def carbon_chain() -> Path:
    """30 frames of C10H2 (neutral) and C10H3+ with GFN2-xTB labels, made for this project."""
    return CARBON_CHAIN


@pytest.fixture(scope="session")
def few_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 of them to train on and 2 for validation, for runs that need not learn anything."""
    path = tmp_path_factory.mktemp("few") / "frames.xyz"
    frames = ase.io.read(CARBON_CHAIN, ":")
    chosen = [*frames[:4], *frames[12:16], frames[24], frames[27]]
    ase.io.write(path, chosen, format="extxyz")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Give the settings of a training run of a second or so, as YAML would hold them."""
    return {
        "output": str(tmp_path / "run"),
        "data": {"train": [str(CARBON_CHAIN)], "split": "key"},
        "model": with_sections(TINY_MODEL),
        "batch_size": 4,
        "max_epochs": 2,
        "device": "cpu",
        "dtype": "float64",
        "compile": False,
    }


@pytest.fixture
def make_config(settings: dict[str, Any]) -> Callable[..., TrainingConfig]:
    """``make_config(max_epochs=3)``: the tiny run with some settings replaced."""

    def make(**changes: Any) -> TrainingConfig:
        wanted = {**settings, **changes}
        return config_from_dict({**wanted, "model": with_sections(wanted["model"])})

    return make
