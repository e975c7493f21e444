"""Verbs about data, from the shell."""

from __future__ import annotations

import json

import ase.io
import pytest
from ase.build import bulk, molecule

from phicalc import cli


@pytest.fixture
def crystal(tmp_path, monkeypatch):
    """Name of a file with a crystal of copper, in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("copper.xyz", bulk("Cu", cubic=True), format="extxyz")
    return "copper.xyz"


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


EMT = ("--calculator", "ase.calculators.emt:EMT")


def test_label_passes_everything_on(crystal, capsys):
    options = ("--sample", "md", "--temperatures", "200", "400", "--frames", "2", "--interval", "3",
               "--timestep", "4", "--thermostat-time", "50", "--copies", "2", "--seed", "9",
               "--arguments", '{"asap_cutoff": true}', "--output", "data.extxyz",
               "--max-force", "77")  # fmt: skip
    assert run("label", crystal, *EMT, *options) == 0
    with open("data.provenance.json", encoding="utf-8") as file:
        document = json.load(file)
    assert document["sampler"] == {
        "name": "md", "temperatures": [200.0, 400.0], "frames": 2, "interval": 3, "timestep": 4.0,
        "thermostat_time": 50.0, "copies": 2, "seed": 9,
    }  # fmt: skip
    assert document["calculator"]["arguments"] == {"asap_cutoff": True}
    assert document["max_force"] == 77
    frames = ase.io.read("data.extxyz", ":")
    assert len(frames) == 8
    assert frames[0].get_stress().any()
    printed = capsys.readouterr().out
    assert "8 frames labelled, 0 failed" in printed
    assert "data.extxyz, data.provenance.json" in printed


def test_label_rattles(crystal):
    options = ("--sample", "rattle", "--displacement", "0.1", "--strain", "0.05")
    assert run("label", crystal, *EMT, *options) == 0
    assert len(ase.io.read("labelled.extxyz", ":")) == 20
    assert run("label", crystal, *EMT, "--sample", "rattle", "--copies", "3", "--overwrite") == 0
    assert len(ase.io.read("labelled.extxyz", ":")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--calculator", "GFN2"), "import path package.module:Class, got 'GFN2'"),
        ((*EMT, "--charge", "1"), "Cu4 has the total charge 1 e"),
        ((*EMT, "--sample", "md", "--frames", "0"), "'frames' must be ≥ 1"),
        (("--calculator", "no.where:Class"), "Install it, or set PYTHONPATH"),
    ],
)
def test_errors_of_labelling_take_one_line(crystal, options, message, capsys):
    assert run("label", crystal, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["[1]", "{a: 1}"])
def test_arguments_are_json_objects(crystal, text, capsys):
    with pytest.raises(SystemExit):
        run("label", crystal, *EMT, "--arguments", text)
    assert "--arguments" in capsys.readouterr().err


def test_two_calculators_at_once_are_refused(tmp_path, capsys):
    ase.io.write(tmp_path / "a.xyz", molecule("H2O"))
    arguments = ["label", str(tmp_path / "a.xyz"), "--model", "water", "--calculator", "gfn2-xtb"]
    arguments += ["--output", str(tmp_path / "labels.xyz")]
    assert cli.main(arguments) == 2
    assert "--model and --calculator name two calculators" in capsys.readouterr().err
