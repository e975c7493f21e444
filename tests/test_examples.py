"""Every script of md_examples runs as a reader would run it, with few steps and a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phicalc.checkpoint import ModelCard, save_model
from phicalc.potential import build_potential

from .tiny import flat_config

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "md_examples").glob("*.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a model with random weights, and with forces far below 0.1 eV/Å.

    A few steps of relaxation or dynamics then leave the structures of the examples as they are.
    Forces of full size, of a model that knows nothing, push atoms into one another.
    """
    config = flat_config(
        elements=("H", "O", "Na", "Cl"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    potential = build_potential(config, seed=1)
    readouts = (potential.linear_readout, potential.readout, potential.head)
    with torch.no_grad():
        for weights in (each for part in readouts for each in part.parameters()):
            weights *= 0.01
    save_model(folder, potential, ModelCard(name="tiny"))
    return str(folder)


def test_there_are_examples():
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script, model, tmp_path):
    text = script.read_text(encoding="utf-8")
    if "gfn2-xtb" in text:
        pytest.importorskip("tblite.ase", reason="tblite is not installed (extra 'label')")
    output = tmp_path / "results.extxyz"  # a file for some scripts, a folder for others
    # A model that was trained for seconds may say so of its atoms.
    command = [sys.executable, "-W", "error", "-W", "ignore:atom", str(script), "--steps", "3"]
    if '"--model"' in text:
        command += ["--model", model]
    if '"--quick"' in text:
        command += ["--quick"]
    done = subprocess.run(
        [*command, "--output", str(output)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert output.exists()
    assert str(output) in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [output.name], "files beside the output"


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_enough_to_read(script):
    assert 60 <= script.read_text(encoding="utf-8").count("\n") <= 120
