"""The certificate: its file, its journal and its page; kills, changes, limits, the command line."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import time

import pytest
from ase import Atoms

from phicalc import cli
from phicalc.certificate import (
    CERTIFICATE_FILE,
    Certificate,
    Curve,
    Figure,
    Outcome,
    find_certificate,
    read_certificate,
    write_certificate,
)
from phicalc.checkpoint import ModelCard, save_model
from phicalc.info import list_models, model_page
from phicalc.potential import build_potential
from phicalc.validation import (
    Check,
    Findings,
    ValidationConfig,
    subject_of_calculator,
    subject_of_model,
    validate,
)
from phicalc.validation.run import JOURNAL_FILE, WORK_FOLDER

from ..tiny import flat_config
from .toys import Pairs


def counting(calls: list[str], **limits: float) -> dict[str, Check]:
    """Make checks that note that they ran."""

    def make(name: str, cost: float, quick: bool) -> Check:
        def run(subject, context):
            calls.append(name)
            return Findings([Figure.of("cost", cost, "s", **limits)])

        return Check(name, f"title of {name}", cost, lambda subject: "", run, quick)

    return {name: make(name, cost, cost < 3) for name, cost in (("a", 1.0), ("b", 2.0), ("c", 3.0))}


def toy(fault: str = ""):
    return subject_of_calculator(Pairs(fault), ("Cu",))


def test_figures_know_their_limits():
    assert Figure.of("x", 1, at_least=0, at_most=2).passed
    assert not Figure.of("x", 3, at_most=2).passed
    assert not Figure.of("x", -1, at_least=0).passed
    for value in (float("nan"), float("inf")):
        assert not Figure.of("x", value, at_most=2).passed
        assert Figure.of("x", value).text == "not finite"
    assert Figure.of("x", 1, "eV", at_least=0.5).limit == "≥ 0.5 eV"


def test_a_status_follows_from_the_figures():
    good, bad = Figure.of("x", 1, at_most=2), Figure.of("x", 3, at_most=2)
    assert Outcome.of("n", "t", [good]).status == "passed"
    assert Outcome.of("n", "t", [good, bad]).status == "failed"
    with pytest.raises(ValueError, match="its figures say otherwise"):
        Outcome("n", "t", "passed", figures=(bad,))
    with pytest.raises(ValueError, match="failed without a reason"):
        Outcome("n", "t", "failed", figures=(good,))
    with pytest.raises(ValueError, match="has 2 x and 1 y"):
        Curve("c", (1.0, 2.0), (1.0,))


def test_the_file_gives_back_the_certificate(tmp_path):
    found = validate(toy(), tmp_path, checks=counting([]), report=lambda _: None)
    assert read_certificate(tmp_path / CERTIFICATE_FILE) == found
    assert found.summary == "3 of 3 passed"
    assert found.passed
    assert not (tmp_path / WORK_FOLDER).exists()
    page = (tmp_path / "certificate.html").read_text()
    assert "title of b" in page
    values = json.loads((tmp_path / CERTIFICATE_FILE).read_text())
    for change, message in (
        ({"format_version": 99}, "of a later phicalc"),
        ({"colour": 1}, "colour"),
        ({"outcomes": [{"check": "a", "title": "", "status": "passed"}]}, "say otherwise"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(values | change))
        with pytest.raises(ValueError, match=message):
            read_certificate(tmp_path / "wrong.json")


def test_what_was_found_is_not_measured_again(tmp_path):
    calls: list[str] = []
    checks = counting(calls)
    first = validate(toy(), tmp_path, ValidationConfig(quick=True), checks=checks)
    assert first.left_out == ("c",)
    assert first.summary == "2 of 2 passed (1 left out)"
    second = validate(toy(), tmp_path, checks=checks)
    assert calls == ["a", "b", "c"]
    assert second.outcomes[:2] == first.outcomes
    validate(toy(), tmp_path, ValidationConfig(only=("b",)), checks=checks, overwrite=True)
    assert calls == ["a", "b", "c", "b"]


@pytest.mark.parametrize("change", ["model", "seed", "elements"])
def test_changes_that_enter_results_start_anew(change, tmp_path):
    calls: list[str] = []
    validate(toy(), tmp_path, checks=counting(calls))
    subject = toy("kink" if change == "model" else "")
    if change == "elements":
        subject = subject_of_calculator(Pairs(), ("Cu", "N"))
    config = ValidationConfig(seed=int(change == "seed"))
    validate(subject, tmp_path, config, checks=counting(calls))
    assert len(calls) == 6


def test_an_interruption_keeps_what_is_finished(tmp_path):
    calls: list[str] = []
    checks = counting(calls)

    def interrupt(subject, context):
        raise KeyboardInterrupt

    broken = checks | {"b": Check("b", "b", 2.0, lambda subject: "", interrupt)}
    with pytest.raises(KeyboardInterrupt):
        validate(toy(), tmp_path, checks=broken)
    assert (tmp_path / WORK_FOLDER / JOURNAL_FILE).is_file()
    found = validate(toy(), tmp_path, checks=checks)
    assert calls == ["a", "b", "c"]
    assert found.passed


def test_a_limit_of_time_leaves_the_rest_to_the_next_run(tmp_path):
    calls: list[str] = []
    config = ValidationConfig(limit_minutes=1e-9)
    found = validate(toy(), tmp_path, config, checks=counting(calls))
    assert not calls
    assert found.summary == "0 of 3 passed (3 not run)"
    assert not found.passed
    assert validate(toy(), tmp_path, checks=counting(calls)).passed
    assert calls == ["a", "b", "c"]


def test_failures_are_named(tmp_path):
    found = validate(toy(), tmp_path, checks=counting([], at_most=1.5))
    assert found.summary == "1 of 3 passed (b, c failed)"
    assert not found.passed


@pytest.mark.parametrize("error", [OSError("no licence"), SystemExit(3)])
def test_checks_that_end_with_an_error_are_tried_again(error, tmp_path):
    calls: list[str] = []
    checks = counting(calls)

    def fail(subject, context):
        raise error

    broken = checks | {"b": Check("b", "b", 2.0, lambda subject: "", fail)}
    found = validate(toy(), tmp_path, checks=broken)
    assert found.summary == "2 of 3 passed (b failed)"
    assert type(error).__name__ in found.outcomes[1].reason
    assert validate(toy(), tmp_path, checks=checks).passed
    assert calls == ["a", "c", "b"]


class Unlicensed(Pairs):
    def __init__(self) -> None:
        raise OSError("no licence")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((f"{__name__}:Unlicensed",), "cannot be made: OSError: no licence"),
        ((f"{__name__}:Unlicenced",), "no attribute 'Unlicenced'"),
        (("nowhere:Calculator",), "No module named 'nowhere'"),
        (("builtins:object",), "is no ASE calculator"),
        (("ase.calculators.emt:EMT", "--elements", "Cx"), "chemical symbols .*, got Cx"),
        (("ase.calculators.emt:EMT", "--reference", "builtins:object"), "is no ASE calculator"),
        (("ase.calculators.emt:EMT", "--skip", "walls"), "nothing is left to check"),
    ],
)
def test_mistakes_of_the_user_are_no_failures_of_a_calculator(options, message, tmp_path, capsys):
    given = [] if "--elements" in options else ["--elements", "Cu,Ag"]
    output = tmp_path / "page"
    arguments = ["validate", *options, *given, "--only", "walls", "--output", str(output)]
    assert cli.main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (output / CERTIFICATE_FILE).exists()


@pytest.mark.parametrize("names", [{"only": ("wall",)}, {"skip": ("wall",)}])
def test_unknown_checks_are_refused(names, tmp_path):
    with pytest.raises(ValueError, match="no check 'wall'.*Did you mean 'walls'"):
        validate(toy(), tmp_path, ValidationConfig(**names))


def test_calculators_need_elements_and_a_folder():
    with pytest.raises(ValueError, match="give elements"):
        subject_of_calculator(Pairs(), ())
    with pytest.raises(ValueError, match="give an output folder"):
        validate(toy())


def slow_checks() -> dict[str, Check]:
    """Make checks that take a moment, and whose results are random numbers of their seed."""

    def run(subject, context):
        time.sleep(0.03)
        return Findings([Figure.of("random", context.rng.random(), at_least=0)])

    names = [f"check {number}" for number in range(8)]
    return {name: Check(name, name, 1.0, lambda subject: "", run) for name in names}


def test_kills_at_any_moment_lead_to_the_same_end(tmp_path):
    fork = multiprocessing.get_context("fork")
    whole = validate(toy(), tmp_path / "whole", checks=slow_checks(), report=lambda _: None)
    arguments = {"checks": slow_checks(), "report": lambda _: None}
    for moment in (0.02, 0.11, 0.07, 0.15):
        process = fork.Process(target=validate, args=(toy(), tmp_path / "killed"), kwargs=arguments)
        process.start()
        time.sleep(moment)
        process.kill()
        process.join()
    found = validate(toy(), tmp_path / "killed", **arguments)
    assert [each.figures for each in found.outcomes] == [each.figures for each in whole.outcomes]
    assert found.digest == whole.digest
    assert read_certificate(tmp_path / "killed" / CERTIFICATE_FILE) == found


def work(folder):
    """Validate a calculator that costs nothing: real checks, among them dynamics."""
    names = ("symmetry", "walls", "cutoff", "fragments", "compression", "surface", "drift")
    subject = subject_of_calculator(Pairs(), ["Cu", "O"])
    validate(subject, folder, ValidationConfig(only=names), report=lambda _: None)


def without_times(folder):
    """Return all of a certificate but how long it took."""
    values = json.loads((folder / CERTIFICATE_FILE).read_text())
    for outcome in values["outcomes"]:
        del outcome["seconds"]
    return values


@pytest.mark.thorough
def test_kill_9_at_twenty_random_moments(tmp_path, monkeypatch):
    monkeypatch.setattr("phicalc.validation.checks.drift.DURATION", 0.02)
    fork, rng, kills = multiprocessing.get_context("fork"), random.Random(11), 0
    begin = time.perf_counter()
    work(tmp_path / "whole")
    length = time.perf_counter() - begin
    for _ in range(60):
        folder = tmp_path / f"parts{kills // 5}"  # a few kills for each of several runs
        process = fork.Process(target=work, args=(folder,))
        process.start()
        process.join(rng.uniform(0.02, 0.4) * length)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        if kills == 20:
            break
    assert kills == 20
    for number in range(4):
        work(tmp_path / f"parts{number}")
        assert without_times(tmp_path / f"parts{number}") == without_times(tmp_path / "whole")
        assert not (tmp_path / f"parts{number}" / WORK_FOLDER).exists()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Folder of a registered model with random weights."""
    config = flat_config(elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1)
    folder = tmp_path / "models" / "tiny"
    card = ModelCard(name="tiny", data={"domain": {"periodic": False}})
    save_model(folder, build_potential(config, seed=1), card)
    monkeypatch.setenv("PHICALC_MODELS", str(tmp_path / "models"))
    return folder


def test_the_command_line_writes_beside_the_model(model, capsys):
    assert cli.main(["validate", "tiny", "--only", "walls", "--seed", "2"]) == 1
    printed = capsys.readouterr().out
    assert "failed          walls" in printed
    assert "tiny: 0 of 1 passed (walls failed; " in printed
    found = read_certificate(model / CERTIFICATE_FILE)
    assert found.settings["seed"] == 2
    assert cli.main(["models"]) == 0
    assert "0 of 1 passed (walls failed" in capsys.readouterr().out
    assert cli.main(["info", "tiny", "--page", str(model / "page.html")]) == 0
    assert "certificate" in capsys.readouterr().out
    assert "data:image/png;base64" in (model / "page.html").read_text()


def test_the_command_line_takes_any_calculator(tmp_path, capsys):
    name = "ase.calculators.emt:EMT"
    options = ("--elements", "Cu", "--only", "surface", "--output", str(tmp_path))
    assert cli.main(["validate", name, *options]) == 0
    assert "EMT: 1 of 1 passed" in capsys.readouterr().out


def test_a_certificate_of_other_weights_says_so(model):
    certificate = Certificate("tiny", "d", "other", ("H",), {}, ())
    write_certificate(model / CERTIFICATE_FILE, certificate)
    (row,) = [row for row in list_models() if row["name"] == "tiny"]
    assert row["certificate"] == "of other weights: run phicalc validate again"
    (model / CERTIFICATE_FILE).write_text("{")
    assert find_certificate(model, "").startswith("cannot be read")
    (model / CERTIFICATE_FILE).unlink()
    assert find_certificate(model, "") == ""
    assert "There is none" in model_page("tiny")


def test_a_model_brings_what_its_card_says(model):
    subject = subject_of_model("tiny")
    assert subject.elements == ("H", "O")
    assert subject.knows_molecules
    assert not subject.knows_crystals


def test_a_committee_is_known_by_all_its_members(tmp_path):
    config = flat_config(elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1)
    for seed in (0, 1):
        folder = tmp_path / f"member_{seed}" / "model"
        save_model(folder, build_potential(config, seed=seed), ModelCard(name=f"member {seed}"))
    subject = subject_of_model(tmp_path)
    assert len(set(subject.record["models"])) == 2
    assert subject.folder == tmp_path
    assert subject.energy(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])) < 1e3
