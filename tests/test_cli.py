"""The command line: every verb once with a tiny model, and errors of one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from phicalc import __version__, cli, progress
from phicalc.calculators.committee import CommitteeCalculator
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.checkpoint import ModelCard, save_model
from phicalc.cli import models, properties
from phicalc.cli.parser import VERBS, make_parser
from phicalc.data.config import KeysConfig
from phicalc.md import MDConfig, read_log
from phicalc.potential import build_potential
from phicalc.structures import water_box, write_structures

from .tiny import flat_config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a model with random weights."""
    config = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1
    )
    card = ModelCard(
        name="tiny", license="MIT", limits=("It knows nothing.",), charge_range=(-1.0, 1.0),
        metrics={"test": {"forces_rmse": 123.456, "energy_mae": 0.5}},
        data={"files": [{"name": "box.xyz"}], "split": {"test_indices": list(range(40))}},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, build_potential(config, seed=1), card)
    return str(folder)


@pytest.fixture
def box(tmp_path, monkeypatch):
    """File with two small boxes of water, in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    frames = [water_box(2, density=0.3), water_box(2, density=0.25)]
    return str(write_structures(tmp_path / "box.extxyz", frames))


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


def test_predict_prints_and_saves_what_the_calculator_says(box, model, capsys):
    assert run("predict", box, "--model", model, "--output", "results.json") == 0
    atoms = water_box(2, density=0.25)
    atoms.calc = PhiCalculator(model)
    energy = atoms.get_potential_energy()
    with open("results.json", encoding="utf-8") as file:
        records = json.load(file)
    assert len(records) == 2
    assert records[1]["energy"] == pytest.approx(energy, abs=1e-5)
    assert np.shape(records[1]["stress"]) == (6,)
    assert np.sum(records[1]["charges"]) == pytest.approx(0, abs=1e-9)
    printed = capsys.readouterr().out
    assert f"{energy:.3f}" in printed
    assert "results.json" in printed


def test_predict_takes_structures_without_atoms(box, model, capsys):
    ase.io.write("some.xyz", [water_box(2, density=0.3), Atoms()])
    assert run("predict", "some.xyz", "--model", model, "--output", "results.xyz") == 0
    assert [len(atoms) for atoms in ase.io.read("results.xyz", ":")] == [len(water_box(2)), 0]
    assert capsys.readouterr().out.splitlines()[2].split()[-1] == "–"


def test_results_are_written_before_a_reader_can_leave(box, model, monkeypatch):
    def leave(*_):
        raise RuntimeError("nobody reads")

    monkeypatch.setattr("phicalc.cli.structures._print_results", leave)
    assert run("predict", box, "--model", model, "--output", "kept.json") == 2
    assert Path("kept.json").is_file()


def test_predict_prints_the_stress(box, model, capsys):
    assert run("predict", box, "--model", model, "--index", "0", "--dtype", "float64") == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.endswith("stress xx yy zz yz xz xy (GPa)")
    atoms = water_box(2, density=0.3)
    atoms.calc = PhiCalculator(model, dtype="float64")
    expected = atoms.get_stress() / units.GPa
    np.testing.assert_allclose([float(text) for text in line.split()[-6:]], expected, atol=1e-4)
    assert run("predict", box, "--model", model, "--no-stress") == 0
    assert "stress" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["out.cif", "POSCAR", "out.vasp"])
def test_results_are_written_beside_files_that_hold_none(name, box, model, capsys):
    assert run("predict", box, "--model", model, "--output", name) == 0
    printed = capsys.readouterr().out
    assert f"written: {name}.results.json, as {name} holds structures without results" in printed
    with open(f"{name}.results.json", encoding="utf-8") as file:
        assert [len(record["forces"]) for record in json.load(file)] == [6, 6]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_structure_that_fails_leaves_the_others(workers, box, model, capsys):
    frames = [*ase.io.read(box, ":"), molecule("NaCl")]
    ase.io.write("mixed.extxyz", frames)
    options = ("--model", model, "--workers", workers, "--output", "good.json")
    assert run("predict", "mixed.extxyz", *options) == 2
    captured = capsys.readouterr()
    assert "1 of 3 structures failed: structure 2: unknown elements" in captured.err
    assert len(captured.out.splitlines()) == 4
    with open("good.json", encoding="utf-8") as file:
        assert len(json.load(file)) == 2


@pytest.mark.parametrize(
    ("verb", "text"),
    [("predict", "2 of 2 structures"), ("relax", "evaluations, energy "), ("vibrations", "|F|")],
)
@pytest.mark.filterwarnings("ignore:vibrations")  # the molecule is not at a minimum
def test_long_tasks_show_how_far_they_are(verb, text, box, model, capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "LONGEST", 0.0)
    ase.io.write("water.xyz", molecule("H2O"))
    source = "water.xyz" if verb == "vibrations" else box
    more = ("--steps", "2") if verb == "relax" else ()
    code = run(verb, source, "--model", model, *more)
    assert code in (0, 2)  # vibrations ask for a minimum
    error = capsys.readouterr().err
    assert f"phicalc {verb}: " in error
    assert text in error


@pytest.mark.filterwarnings("ignore:H2O .* is beyond the cutoff")
def test_predict_takes_the_total_charge_and_leaves_out_stress(box, model):
    options = ("--index", "-1", "--charge", "1", "--no-stress", "--dtype", "float64")
    assert run("predict", box, "--model", model, "--output", "r.extxyz", *options) == 0
    frame = ase.io.read("r.extxyz")
    assert frame.get_charges().sum() == pytest.approx(1, abs=1e-6)
    assert "stress" not in frame.calc.results


@pytest.fixture
def members(tmp_path):
    """Folder of a committee, as `phicalc train --members` leaves it."""
    config = flat_config(elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1)
    for seed in (0, 1, 2):
        folder = tmp_path / "committee" / f"member_{seed}" / "model"
        save_model(folder, build_potential(config, seed=seed), ModelCard(name=f"member {seed}"))
    return str(tmp_path / "committee")


@pytest.mark.parametrize("scheduler", [(), ("--workers", "1")])
def test_predict_tells_where_a_committee_disagrees(box, members, scheduler, capsys):
    options = ("--model", members, "--dtype", "float64", *scheduler)
    for name in ("results.json", "results.extxyz"):
        assert run("predict", box, *options, "--output", name) == 0
    committee = CommitteeCalculator(members, dtype="float64")
    atoms = water_box(2, density=0.3)
    atoms.calc = committee
    forces, spread = atoms.get_forces(), committee.committee_results
    frame = ase.io.read("results.extxyz", "0")
    with open("results.json", encoding="utf-8") as file:
        record = json.load(file)[0]
    np.testing.assert_allclose(frame.get_forces(), forces, atol=1e-7)
    np.testing.assert_allclose(frame.arrays["forces_std"], spread["forces_std"], atol=1e-7)
    assert frame.info["energy_std"] == pytest.approx(spread["energy_std"], rel=1e-6)
    np.testing.assert_allclose(record["forces_std"], spread["forces_std"], atol=1e-7)
    assert record["energy_std"] == pytest.approx(spread["energy_std"], rel=1e-6)
    assert f"{spread['forces_std'].max():.4f}" in capsys.readouterr().out.splitlines()[1].split()


def test_relax_takes_a_committee(box, members):
    options = ("--index", "0", "--steps", "2", "--output", "relaxed.extxyz")
    assert run("relax", box, "--model", members, *options) == 0
    assert ase.io.read("relaxed.extxyz").arrays["forces_std"].shape == (6,)


def test_train_starts_from_a_model_and_trains_committees(monkeypatch):
    calls = []
    monkeypatch.setattr(models, "train_from_yaml", lambda *a: calls.append(a))
    monkeypatch.setattr(models, "train_committee_from_yaml", lambda *a: calls.append(a))
    assert run("train", "own.yaml", "seed=3", "--finetune", "models: old/water") == 0
    assert run("train", "own.yaml", "--members", "4") == 0
    assert calls == [
        ("own.yaml", ["seed=3", 'init="models: old/water"']),
        ("own.yaml", [], 4),
    ]


def test_relax_writes_a_structure_of_lower_energy(box, model, capsys):
    options = ("--cell", "--steps", "2", "--optimizer", "fire", "--trajectory", "path.extxyz")
    assert run("relax", box, "--model", model, *options) == 0
    frames = ase.io.read("path.extxyz", ":")
    relaxed = ase.io.read("box_relaxed.extxyz")
    assert relaxed.get_potential_energy() == pytest.approx(frames[-1].get_potential_energy())
    assert relaxed.get_potential_energy() < frames[0].get_potential_energy()
    assert not np.allclose(relaxed.cell, frames[0].cell)
    printed = capsys.readouterr().out
    assert "NOT converged after 2 steps" in printed
    assert "cell: " in printed


def test_md_does_what_it_is_told(box, model, capsys):
    options = ("--ensemble", "nvt", "--thermostat", "bussi", "--temperature", "250", "--steps", "4",
               "--seed", "5", "--timestep", "0.25", "--log-interval", "2", "--output", "out",
               "--max-force", "1000")  # fmt: skip
    assert run("md", box, "--model", model, *options) == 0
    log = read_log("out/log.csv")
    np.testing.assert_allclose(log["time_ps"], [0, 0.0005, 0.001])
    with open("out/config.json", encoding="utf-8") as file:
        config = json.load(file)
    assert (config["thermostat"], config["temperature"], config["seed"]) == ("bussi", 250.0, 5)
    printed = capsys.readouterr().out
    for name in ("log.csv", "trajectory.extxyz", "final.extxyz", "report.png"):
        assert f"out/{name}" in printed


def test_analyse_writes_table_picture_and_page(box, model, capsys):
    options = ("--steps", "4", "--trajectory-interval", "1", "--max-force", "1000", "--no-report")
    assert run("md", box, "--model", model, "--output", "out", *options) == 0
    assert run("analyse", "out", "--output", "page", "--discard", "0") == 0
    printed = capsys.readouterr().out
    for text in (
        "temperature",
        "O–H coordination",
        "diffusion",
        "not applicable: 5 frames are too",
    ):
        assert text in printed
    with open("page/analysis.json", encoding="utf-8") as file:
        assert json.load(file)["frames"] == 5
    assert "analysis.html" in printed


@pytest.fixture
def copper(tmp_path, monkeypatch):
    """CIF of copper, in the folder where the commands run; EMT instead of a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(properties, "calculator_of", lambda _: EMT())
    ase.io.write("copper.cif", bulk("Cu", a=3.59))
    return "copper.cif"


@pytest.mark.parametrize(
    ("verb", "options", "texts"),
    [
        ("eos", ("--points", "5"), ("bulk modulus", "GPa", "eos.png")),
        ("elastic", ("--clamped",), ("Fm-3m (225)", "Young's modulus", "stable")),
        ("phonons", ("--supercell", "2", "2", "2", "--mesh", "4"), ("THz", "phonons.png")),
        ("vibrations", (), ("zero-point energy", "3 rigid motions")),
    ],
)
def test_properties_are_printed_and_saved(verb, options, texts, copper, capsys):
    if verb == "phonons":
        pytest.importorskip("phonopy")
    if verb == "elastic":
        pytest.importorskip("matscipy")
    assert run(verb, copper, *options) == 0
    printed = capsys.readouterr().out
    for text in texts:
        assert text in printed
    with open(f"{verb}.json", encoding="utf-8") as file:
        assert json.load(file)
    assert f"written: {verb}.json" in printed


def test_train_and_evaluate_pass_their_arguments_on(monkeypatch):
    calls = []
    monkeypatch.setattr(models, "train_from_yaml", lambda *a, **k: calls.append((a, k)))
    monkeypatch.setattr(models, "evaluate_model", lambda *a, **k: calls.append((a, k)))
    assert run("train", "water.yaml", "max_epochs=3", "optimizer.lr=0.1") == 0
    assert run("evaluate", "water", "test.xyz", "--output", "errors", "--device", "cpu") == 0
    assert calls == [
        (("water.yaml", ["max_epochs=3", "optimizer.lr=0.1"]), {}),
        (("water", "test.xyz", "errors"), {"device": "cpu", "keys": KeysConfig()}),
    ]


def test_evaluate_knows_the_keys_of_the_training_data(tmp_path, monkeypatch):
    keys = {"energy": "REF_energy", "forces": "REF_forces", "dipole_origin": "coordinates"}
    card = ModelCard(name="own", training={"config": {"data": {"keys": keys}}})
    config = flat_config(elements=("H",), cutoff=3.0, layers=1, channels=4, l_max=1)
    save_model(tmp_path / "own", build_potential(config, seed=1), card)
    calls = []
    monkeypatch.setattr(models, "evaluate_model", lambda *a, keys, **k: calls.append(keys))
    own = str(tmp_path / "own")
    assert run("evaluate", own, "test.xyz") == 0
    assert run("evaluate", own, "test.xyz", "--forces", "f", "--dipole-origin=centre_of_mass") == 0
    assert calls[0] == KeysConfig(**keys)
    assert calls[1] == KeysConfig(energy="REF_energy", forces="f")


def test_evaluate_takes_a_committee(box, members, capsys):
    assert run("predict", box, "--model", members, "--output", "labelled.extxyz") == 0
    capsys.readouterr()
    assert run("evaluate", members, "labelled.extxyz", "--device", "cpu") == 0
    printed = capsys.readouterr().out.splitlines()
    errors = {line.split()[0]: float(line.split()[1]) for line in printed[1:4]}
    assert errors["energy"] < 1e-3  # meV/atom: labels are the means themselves
    assert errors["forces"] < 1e-2  # meV/Å
    assert run("evaluate", f"{members}/member_0/model", "labelled.extxyz", "--device", "cpu") == 0
    one = capsys.readouterr().out.splitlines()
    assert float(one[2].split()[1]) > 1.0


def test_info_shows_versions_and_engines(capsys):
    assert run("info") == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["phicalc"] == __version__
    assert {"torch", "ase", "neighbor", "device", "models"} <= set(rows)
    assert "vesin" in rows["neighbor"]


def test_info_shows_the_card_of_a_model(model, capsys):
    assert run("info", model) == 0
    printed = capsys.readouterr().out
    for text in (
        "tiny",
        "MIT",
        "H O",
        "3.0 Å",
        "-1 to 1 e",
        "It knows nothing.",
        "forces_rmse 123.5, energy_mae 0.5",
        "name box.xyz",
        "(40 entries)",
    ):
        assert text in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "nothing.xyz"), "no structure file nothing.xyz"),
        (("predict", "{box}", "--model", "nothing"), "no model 'nothing'"),
        (("predict", "{box}", "--model", "{model}", "--dtype", "int8"), "dtype must be 'float32'"),
        (("relax", "{box}", "--model", "{model}", "--fmax", "-1"), "fmax must be positive"),
        (("md", "{box}", "--model", "{model}", "--steps", "-1"), "'steps' must be ≥ 0, got -1"),
        (("md", "{box}", "--thermostat", "andersen"), "'thermostat' must be one of 'langevin', "),
        (("md", "{box}", "--ensemble", "NPTT"), "got 'NPTT'. Did you mean 'npt'"),
        (("md", "{box}", "--steps", "1.5"), "'steps' must be a whole number, got 1.5"),
        (("md", "{box}", "--axes", "12"), "'axes' must be text, got 12 (int)"),
        (("md", "{box}", "--model", "{model}", "--max-force", "1e-6"), "step 0: the force on atom"),
        (("train", "nothing.yaml"), "nothing.yaml"),
        (("info", "nothing"), "no model 'nothing'"),
        (("evaluate", "nothing", "{box}"), "no model 'nothing'"),
        (("serve", "{box}", "--model", "{model}", "--port", "99999"), "port must be a number from"),
        (("serve", "{box}", "--model", "{model}", "--wait", "0"), "no server at"),
        (
            ("predict", "{box}", "--model", "{model}", "--workers", "0"),
            "workers must be a positive",
        ),
        (("predict", "{box}", "--model", "{model}", "--index", "99"), "99"),
    ],
)
def test_errors_take_one_line(arguments, message, box, model, capsys):
    arguments = [text.format(box=box, model=model) for text in arguments]
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"phicalc {arguments[0]}: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_debug_shows_where_an_error_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="no structure file"):
        run("predict", str(tmp_path / "nothing.xyz"), "--debug")


@pytest.mark.parametrize(("verb", "advised"), [("predict", True), ("info", False)])
def test_verbs_that_compute_warn_of_busy_cores(verb, advised, box, model, capsys, monkeypatch):
    monkeypatch.setattr("phicalc.cli.running.advice_on_threads", lambda: "cores are busy")
    files = [str(box)] if verb == "predict" else []
    assert cli.main([verb, *files, *(["--model"] * bool(files)), str(model)]) == 0
    assert ("phicalc: cores are busy" in capsys.readouterr().err) == advised


def test_interruption_is_no_error_message(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "train_from_yaml", interrupt)
    assert run("train", "water.yaml") == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("fly",), ("md", "x", "--compile", "maybe")])
def test_wrong_usage_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "usage: phicalc" in capsys.readouterr().err


def test_every_md_setting_can_be_given():
    """A setting added to MDConfig must get its flag."""
    options = make_parser().parse_args(["md", "x"])
    assert set(MDConfig.__dataclass_fields__) <= set(vars(options))


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for name, (_, text) in VERBS.items():
        assert name in printed
        assert text in printed


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        run(verb, "--help")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: phicalc {verb}" in printed
    assert "--debug" in printed


def test_options_may_stand_among_arguments(monkeypatch):
    calls = []
    monkeypatch.setattr(models, "train_committee_from_yaml", lambda *a: calls.append(a))
    assert run("train", "c.yaml", "--members", "2", "output=x", "--threads", "1", "seed=3") == 0
    assert calls == [("c.yaml", ["output=x", "seed=3"], 2)]


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "phicalc.cli", "--version"], capture_output=True, text=True
    )
    assert done.stdout.strip() == f"phicalc {__version__}"


def test_the_error_for_an_unknown_element_names_models_that_know_it(box, capsys):
    ase.io.write("salt.xyz", Atoms("OHNa", [[0, 0, 0], [0, 0, 0.97], [0, 0, -2]]))
    assert run("predict", "salt.xyz", "--model", "water-small") == 2
    error = capsys.readouterr().err
    assert "unknown elements Na" in error
    assert error.rstrip().endswith(
        "Models with all elements of this structure: organics, salt-water"
    )
    ase.io.write("gold.xyz", Atoms("Au"))
    assert run("predict", "gold.xyz", "--model", "water-small") == 2
    assert "No shipped or registered model knows all elements" in capsys.readouterr().err


def test_warnings_take_one_line(box, model):
    command = [
        sys.executable,
        "-m",
        "phicalc.cli",
        "predict",
        box,
        "--model",
        model,
        "--charge",
        "5",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    (line,) = {line for line in done.stderr.splitlines() if "5 e" in line}
    assert line.startswith("phicalc: warning: total charge 5 e")


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-c", "from phicalc.cli import main; main(['info'])"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0  # of the program around


@pytest.mark.parametrize("verb", ["predict", "relax", "eos", "md"])
def test_strict_refuses_what_is_outside_of_the_model(verb, box, model, capsys):
    options = ("--index", "0", "--model", model, "--charge", "5", "--strict")
    assert run(verb, box, *options) == 2
    assert "total charge 5 e" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["elastic", "phonons", "vibrations", "serve"])
def test_every_verb_that_computes_can_be_strict(verb):
    assert make_parser().parse_args([verb, "x", "--strict"]).strict
