"""The doctor: shipped models agree with their reference values, and what is ill is found."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from ase import Atoms
from ase.build import molecule

from phicalc import cli, doctor
from phicalc.certificate import find_certificate
from phicalc.checkpoint import ModelCard, available_models, read_card, save_model
from phicalc.doctor import REFERENCE_FILE, check_model, deviations, examine, write_reference
from phicalc.potential import build_potential
from phicalc.structures import water_box, write_structures

from .tiny import flat_config

SHIPPED = available_models()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Register one model alone: random weights, with reference values."""
    config = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1
    )
    folder = tmp_path / "models" / "tiny"
    save_model(folder, build_potential(config, seed=1), ModelCard(name="tiny"))
    hydroxide = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1.0})
    frames = [water_box(2, density=0.3), molecule("H2O"), hydroxide]
    write_reference(folder, write_structures(tmp_path / "some.extxyz", frames))
    monkeypatch.setattr(doctor, "available_models", lambda: {"tiny": folder})
    return folder


def test_there_are_shipped_models():
    assert {"water", "water-small"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_give_their_reference_values(name):
    check = check_model(name, SHIPPED[name], dtype="float64", device="cpu")
    assert check.ok, check.detail
    assert "forces" in check.detail


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_have_certificates_of_their_weights(name):
    """`make certificates` renews them."""
    line = find_certificate(SHIPPED[name], read_card(SHIPPED[name]).sha256)
    assert re.match(r"\d+ of \d+ passed", line), line


def test_all_is_well_here(model):
    found = list(examine(compiling=False, device="cpu"))
    assert [check for check in found if not check.ok] == []
    names = [check.name for check in found]
    assert {"Python", "torch", "ase", "device", "model tiny, float64", "model tiny, float32"} <= {
        *names
    }
    assert "pytest" not in names  # extras are not asked for


def test_changed_results_are_found_and_told(model, capsys):
    records = json.loads((model / REFERENCE_FILE).read_text())
    records[1]["forces"][2][0] += 0.01
    (model / REFERENCE_FILE).write_text(json.dumps(records))
    assert deviations(model, dtype="float64")["forces"] == pytest.approx(0.01)
    assert cli.main(["doctor", "--no-compile", "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert "FAILED  model tiny, float64" in captured.out
    assert "→ install phicalc again" in captured.out
    assert captured.err.startswith("phicalc doctor: FAILED: model tiny, float64, model tiny")


def test_broken_models_are_found(model):
    (model / "weights.safetensors").write_bytes(b"rubbish")
    check = check_model("tiny", model, dtype="float64")
    assert not check.ok
    assert check.advice
    shutil.rmtree(model)
    assert "not compared" in check_model("tiny", model, dtype="float64").detail


def test_old_versions_and_missing_packages_are_found(monkeypatch, model):
    wanted = ["numpy>=999", "no-such-thing>=1", "pytest; extra == 'test'", "scipy"]
    monkeypatch.setattr(doctor, "requires", lambda _: wanted)
    found = {check.name: check for check in examine(compiling=False)}
    assert not found["numpy"].ok
    assert ">=999 is wanted" in found["numpy"].detail
    assert not found["no-such-thing"].ok
    assert found["no-such-thing"].advice == "pip install 'no-such-thing>=1'"
    assert found["scipy"].ok
    assert "pytest" not in found


def test_a_failing_compiler_is_no_end(monkeypatch, model):
    def fail(*_):
        raise FileNotFoundError("c++")

    monkeypatch.setattr(doctor, "compile_functions", fail)
    found = {check.name: check for check in examine(device="cpu")}
    assert not found["compiler"].ok
    assert "g++" in found["compiler"].advice
    assert found["model tiny, float32"].ok


def test_models_are_listed(monkeypatch, model, capsys):
    monkeypatch.setenv("PHICALC_MODELS", str(model.parent))
    broken = model.parent / "broken"
    broken.mkdir()
    (broken / "card.json").write_text("{}")
    assert cli.main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "broken cannot be read" in printed
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    assert lines["name"].split() == [
        "name", "elements", "made", "for", "periodic", "charges", "energy", "forces", "certificate",
    ]  # fmt: skip
    for text in ("H O Na Cl", "11.2 meV/Å", "0.207 meV/atom", "0 e", "Sodium chloride in"):
        assert text in lines["salt-water"]
    assert {"water-small", "tiny", "organics"} <= set(lines)
    assert len(lines) < len(available_models()) + 8  # one line each
    assert cli.main(["info", "water"]) == 0
    printed = capsys.readouterr().out
    assert "MIT" in printed
    assert "kB" in printed


@pytest.mark.parametrize("error", [0.0, 1e-3])
def test_a_compiled_function_must_give_the_right_numbers(monkeypatch, error):
    kept = {}
    monkeypatch.setattr(doctor, "compile_functions", kept.update)

    def load(path):
        program, *_ = kept[path]
        return lambda x: [program(x)[0] + error]

    monkeypatch.setattr(doctor, "load_function", load)
    if not error:
        assert doctor._compile() == "compiles, loads and agrees"
        return
    with pytest.raises(RuntimeError, match="a compiled function gives wrong numbers"):
        doctor._compile()


@pytest.mark.parametrize(("found", "text"), [(True, "built and loaded"), (False, "none: ")])
def test_native_sums_may_be_missing(found, text, monkeypatch):
    monkeypatch.setattr(doctor, "prepare_kernels", lambda *_: found)
    assert doctor._native().startswith(text)


@pytest.mark.thorough
def test_the_compiler_works():
    assert doctor._compile() == "compiles, loads and agrees"
