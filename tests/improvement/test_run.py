"""Whole runs: rounds, provenance, budgets, kills, and calculators that fail."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from phicalc.checkpoint import read_card
from phicalc.cli import main
from phicalc.improvement import config_of, improve
from phicalc.improvement.rounds import scoped_subject
from phicalc.labelling.journal import Journal
from phicalc.training.run_folder import RunFolder

from .references import Springs, chain

TRAIN = {
    "batch_size": 4, "max_epochs": 2,
    "model": {
        "cutoff": 3.0,
        "backbone": {"name": "nequip", "layers": 1, "channels": 4, "l_max": 1, "correlation": 1},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run whose certificate is never passed; its folder ``whole`` is for reading alone."""
    folder = tmp_path_factory.mktemp("improvement")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        never(patch)
        ase.io.write("n3.xyz", chain())
        return folder, *run("whole")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ase.io.write("n3.xyz", chain())
    return tmp_path


def settings(output: str = "run", **changes: Any) -> dict[str, Any]:
    """Two rounds of a few seconds."""
    values = {
        "structures": ["n3.xyz"],
        "output": output,
        "calculator": {"name": "tests.improvement.references:Springs"},
        "train": TRAIN,
        "explore": {
            "md": {"temperatures": [300.0], "frames": 3, "interval": 2},
            "rattle": {"copies": 6},
            "pairs": {"points": 3, "smallest": 0.6},
        },
        "first_labels": 6,
        "round_labels": 4,
        "max_force": 1e3,
        "timeout": None,
        "validate": {"only": ["torsions", "fragments"]},
        "budget": {"max_labels": 10},
    }
    return {**values, **changes}


def run(output: str = "run", **changes: Any):
    lines: list[str] = []
    result = improve(config_of(settings(output, **changes)), lines.append)
    return result, lines


#: A certificate that no such model passes: the only check that applies is broken down.
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phicalc.validation.checks.fragments.LARGEST_ENERGY", -1.0)


def products(folder: Path) -> dict[str, bytes]:
    """All that must be the same: files without times, and the weights of all models."""
    names = ("chosen.extxyz", "labels.extxyz", "candidates.extxyz", "weights.safetensors")
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for name in names
        for path in folder.rglob(name)
    }
    history = json.loads((folder / "history.json").read_text())
    for record in history["rounds"]:
        del record["seconds"]
    del history["settings"]["output"]
    remarks = [text.replace(folder.name, "") for text in history.pop("remarks")]
    return {**found, "history": json.dumps([history, remarks]).encode()}


def test_rounds_end_with_the_budget_and_say_what_fails(whole) -> None:
    folder, result, lines = whole
    assert not result.passed
    assert result.calls == 10
    assert [record.calls for record in result.records] == [6, 4]
    assert "the budget of 10 labels is spent after 2 rounds and 10 labels" in result.line
    assert "still failing: fragments" in result.line
    ends = [line for line in lines if "; spent: " in line]
    assert [re.findall(r"took (\d+) labels|spent: (\d+ of \d+) labels", line) for line in ends] == [
        [("6", ""), ("", "6 of 10")],
        [("4", ""), ("", "10 of 10")],
    ]
    assert lines[-1] == result.line
    page = (folder / "whole" / "history.html").read_text()
    assert "still failing: fragments" in page
    assert (folder / "whole" / "model" / "certificate.json").is_file()


def test_every_frame_says_where_it_comes_from(whole) -> None:
    rounds = [whole[0] / "whole" / f"round_{number:02d}" for number in (0, 1)]
    frames = ase.io.read(rounds[1] / "labels.extxyz", ":")
    assert len(frames) == 4
    for atoms in frames:
        assert atoms.info["found_by"] in ("md", "rattle", "pairs")
        assert atoms.info["chosen_by"] in ("uncertainty", "domain")
        assert {"round", "parent", "novelty", "split", "charge"} <= set(atoms.info)
        assert atoms.get_forces().shape == (3, 3)
    first, second = (read_card(folder / "train" / "model") for folder in rounds)
    assert second.training["parent"]["sha256"] == first.sha256
    assert second.data["counts"]["train"] == whole[1].records[1].train == 8


@pytest.mark.thorough
def test_a_run_that_has_ended_goes_on_with_a_larger_budget(whole, monkeypatch) -> None:
    never(monkeypatch)
    shutil.copytree(whole[0] / "whole", "whole")
    more, _ = run("whole", budget={"max_labels": 12})
    assert [record.calls for record in more.records] == [6, 4, 2]


def test_a_run_that_has_ended_is_left_alone(whole, monkeypatch) -> None:
    never(monkeypatch)
    shutil.copytree(whole[0] / "whole", "whole")
    again, lines = run("whole")  # nothing is left to do
    assert (again.line, again.records) == (whole[1].line, whole[1].records)
    assert not any("labelled" in line for line in lines)
    with pytest.raises(ValueError, match=r"other settings \(round_labels: 4 → 5\)"):
        run("whole", round_labels=5)
    ase.io.write("n3.xyz", chain()[[1, 0, 2]])
    with pytest.raises(ValueError, match=r"other settings \(inputs.n3.xyz: "):
        run("whole")


def test_the_certificate_is_about_the_chemistry_that_was_asked_for(whole) -> None:
    model = whole[0] / "whole" / "model"
    known = set(read_card(model).domain.environments)
    subject = scoped_subject(config_of(settings()), [chain()], model)
    assert subject.claims.environments == {"N(NN)"} < known  # frames were pulled apart
    ase.io.write("pair.xyz", [molecule("N2"), Atoms("N")])
    more = scoped_subject(config_of(settings(data=["pair.xyz"])), [chain()], model)
    assert more.claims.environments == {"N()", "N(N)", "N(NN)"}
    assert more.record != subject.record
    mended = scoped_subject(config_of(settings(model=str(model))), [chain()], model)
    assert mended.claims.environments == known


def test_a_run_ends_when_the_certificate_is_passed() -> None:
    result, _ = run()
    assert result.passed
    assert len(result.records) == 1
    assert "the certificate is passed after 1 round and 6 labels: 1 of 1 passed" in result.line
    assert main(["improve", "n3.xyz", *_flat(settings())]) == 0
    assert Path("run/history.html").is_file()


def _flat(values: dict[str, Any]) -> list[str]:
    return [f"{k}={json.dumps(v)}" for k, v in values.items() if k != "structures"]


@pytest.mark.thorough
def test_models_that_exist_are_improved(monkeypatch) -> None:
    run("first")
    mend = {"model": "first/model", "train": {k: v for k, v in TRAIN.items() if k != "model"}}
    result, _ = run("passed", **mend)
    assert (result.passed, result.calls) == (True, 0)
    assert "there is no new model" in result.line
    never(monkeypatch)
    result, _ = run("second", data=["first/round_00/train.extxyz"], round_labels=10, **mend)
    assert result.records[0].calls == 10
    assert {"md"} <= set(result.records[0].found_by)
    card = read_card("second/model")
    assert card.training["parent"]["sha256"] == read_card("first/model").sha256
    assert card.data["counts"]["train"] == 5 + result.records[0].train


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_killed_runs_come_to_the_same_end(whole, monkeypatch) -> None:
    """Three kills: after a label, after a step of training is kept, before a product is."""
    never(monkeypatch)
    kills = []
    for owner, name, moment in (
        (Journal, "append", 3),
        (RunFolder, "save", 2),
        (Path, "replace", 9),
    ):
        original, calls = getattr(owner, name), 0

        def torn(self, *arguments, original=original, name=name, moment=moment, **more):
            nonlocal calls
            calls += 1
            if calls == moment and name == "replace":
                raise Killed
            found = original(self, *arguments, **more)
            if calls == moment:
                raise Killed
            return found

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, torn)
            with pytest.raises(Killed):
                run("torn")
        kills.append(name)
    run("torn")
    assert len(kills) == 3
    assert products(Path("torn")) == products(whole[0] / "whole")


def _start(output: str, timeout: float | None) -> None:
    config = config_of(settings(output, timeout=timeout, budget={"max_labels": 14}))
    improve(config, lambda _: None)


@pytest.mark.thorough
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_kill_9_at_twenty_random_moments(timeout, monkeypatch) -> None:
    """With a limit of time, labels come from processes that outlive the kill for a moment."""
    never(monkeypatch)
    begin = time.perf_counter()
    in_a_child("whole", timeout)
    length, rng, kills = time.perf_counter() - begin, random.Random(7), 0
    for _ in range(100):
        output = f"parts{kills // 5}"  # a few kills for each of several runs
        kills += in_a_child(output, timeout, rng.uniform(0.05, 0.4) * length)
        if kills == 20:
            break
    assert kills == 20
    for number in range(4):
        in_a_child(f"parts{number}", timeout)
        assert products(Path(f"parts{number}")) == products(Path("whole"))


def in_a_child(output: str, timeout: float | None, kill_after: float | None = None) -> bool:
    """Run in a process of its own, and kill it; whether it was still at work."""
    child = multiprocessing.get_context("fork").Process(target=_start, args=(output, timeout))
    child.start()
    child.join(kill_after)
    if child.is_alive():
        child.kill()
        child.join()
        return True
    assert child.exitcode == 0
    return False


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["nan", "crash", "hang"])
def test_bad_calculators_are_survived_and_named(fault, monkeypatch) -> None:
    never(monkeypatch)
    spec = {"name": "tests.improvement.references:Springs", "arguments": {"fault": fault}}
    changes = {"calculator": spec, "timeout": 5.0, "budget": {"max_labels": 6}}
    result, _ = run(**changes)
    named = {"nan": "energy not finite", "crash": "SIGSEGV", "hang": "no result within 5 s"}
    assert any(named[fault] in text for text in result.records[0].failures)
    assert result.records[0].train > 0
    assert named[fault] in Path("run/history.html").read_text()


def test_calculators_that_never_work_end_the_run() -> None:
    spec = {"name": "tests.improvement.references:Springs", "arguments": {"fault": "always"}}
    with pytest.raises(RuntimeError, match="every frame failed; the first: ZeroDivisionError"):
        run(calculator=spec)
    result, _ = run("other", calculator=spec, check_reference=False)
    assert "round 0 gave no labelled frame" in result.line
    assert result.model is None


def test_wrong_units_are_named_before_labels_or_on_the_page() -> None:
    spec = {"name": "tests.improvement.references:Springs"}
    with pytest.raises(ValueError, match="energies in Hartree beside forces in eV/Å"):
        run(calculator={**spec, "arguments": {"energy_unit": 27.2114}})
    assert not list(Path("run").glob("round_*"))
    both = {**spec, "arguments": {"energy_unit": 27.2114, "force_unit": 27.2114}}
    _, lines = run(calculator=both, budget={"max_labels": 6})
    assert any("may both be in Hartree" in line for line in lines)
    assert "may both be in Hartree" in Path("run/history.html").read_text()


@pytest.mark.parametrize("select", ["uncertainty", "random"])
def test_runs_that_find_no_frame_end_and_say_so(select) -> None:
    explore = {"torsions": {"points": 2}}
    result, _ = run(explore=explore, select=select)
    assert "round 0 found no new frame to label" in result.line
    assert (result.calls, result.model) == (0, None)


class Licensed(Springs):
    """Springs that want a file."""

    def calculate(self, *arguments, **more):
        if not Path("licence").exists():
            raise RuntimeError("no licence")
        super().calculate(*arguments, **more)


@pytest.mark.parametrize("check_reference", [True, False])
def test_runs_go_on_once_the_calculator_works(check_reference) -> None:
    changes = {
        "calculator": {"name": f"{__name__}:Licensed"},
        "check_reference": check_reference,
        "budget": {"max_labels": 6},
    }
    if check_reference:
        with pytest.raises(RuntimeError, match="every frame failed.*no licence"):
            run(**changes)
    else:
        assert "round 0 gave no labelled frame" in run(**changes)[0].line
    Path("licence").touch()
    assert run(**changes)[0].records[0].train > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calculator": {"name": "nowhere:Calculator"}}, "No module named 'nowhere'"),
        ({"calculator": {"name": "builtins:object"}}, "is no ASE calculator"),
        ({"train": {"model": {"head": "qe"}}}, "'train': .*Did you mean 'qeq'"),
        ({"train": {"loss": {"stress": {"weight": 1}}}}, "gives no stress of N3"),
        ({"data": ["unlabelled.xyz"]}, "unlabelled.xyz, frame 0: no energy"),
        ({"data": ["other.xyz"]}, "frame 0 holds C, .* knows N"),
        ({"structures": ["empty.xyz"]}, "at least one atom"),
        ({"model": "water"}, "'water' does not know N"),
    ],
)
def test_what_would_end_a_run_later_is_refused_before_labels(changes, message) -> None:
    ase.io.write("empty.xyz", Atoms())
    ase.io.write("unlabelled.xyz", chain())
    other = Atoms("C", calculator=EMT())
    other.get_forces()
    ase.io.write("other.xyz", other)
    with pytest.raises((ValueError, ImportError), match=message):
        run(**changes)
    assert not list(Path("run").glob("round_*"))
    assert Path("run").exists() == ("stress" in message)
    if "stress" in message:  # after these settings had been kept: others may follow
        assert run(budget={"max_labels": 2, "max_rounds": 1}, first_labels=2)[0].records


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explore": {"mdd": {}}}, "unknown key 'explore.mdd'. Did you mean 'md'?"),
        ({"explore": {"md": {"frames": 0}}}, "'explore.md.frames' must be ≥ 1"),
        ({"explore": {}}, "must name at least one sampler"),
        ({"train": {"output": "x"}}, "'train.output' is decided by each round"),
        ({"train": {"uncertainty": False}}, "'train.uncertainty' must not be false"),
        ({"validate": {"only": ["wals"]}}, "Did you mean 'walls'"),
        ({"choose": "random"}, "unknown key 'choose'"),
    ],
)
def test_settings_that_make_no_sense(changes, message) -> None:
    with pytest.raises(ValueError, match=r"'") as error:
        config_of(settings(**changes))
    assert message in str(error.value)


def test_yaml_and_arguments_say_the_same() -> None:
    Path("a.yaml").write_text("structures: [n3.xyz]\nbudget: {max_labels: 7}\n")
    overrides = ["output=x", "validate.only=[walls]"]
    assert config_of(["a.yaml"], overrides) == config_of(
        ["n3.xyz"], [*overrides, "budget.max_labels=7"]
    )
    assert config_of(["n3.xyz"], overrides).validate.quick
    with pytest.raises(ValueError, match=r"a.yaml: unknown key 'outputt'"):
        config_of(["a.yaml"], ["outputt=x"])
