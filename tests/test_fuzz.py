"""The fuzzer of tools/fuzz: its verdicts, and some of its cases so that it cannot rot."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from phicalc.checkpoint import resolve_dtype

REPOSITORY = Path(__file__).resolve().parents[1]

#: Some cases of every part, of a second at most each.
CASES = {
    "structures": (*range(1, 22), *range(23, 30)),
    "settings": (1, 2, 3, 5, 6, 8, 9, 10, 12, 13, 18, 19, 21, 22, 23, 24, 25, 27, 28, 29, 30),
    "commands": (1, 2, *range(6, 13), *range(14, 33)),
    "files": (0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20),
}  # fmt: skip


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from tools.fuzz import verdicts

    return verdicts


def _refused(name: str) -> None:
    """Refuse something as phicalc does: in one of its own lines."""
    resolve_dtype(name)


def test_clear_errors_count_as_refused(verdicts: ModuleType) -> None:
    case = verdicts.Case("dtype", "", lambda: _refused("float16"), names=("dtype",))
    assert verdicts.examine(case, 5).verdict == verdicts.REFUSED


def test_error_that_names_something_else_is_a_failure(verdicts: ModuleType) -> None:
    case = verdicts.Case("dtype", "", lambda: _refused("float16"), names=("smearing",))
    outcome = verdicts.examine(case, 5)
    assert outcome.verdict == verdicts.FAILED
    assert "does not name it" in outcome.signature


def test_errors_that_nobody_wrote_for_users_are_failures(verdicts: ModuleType) -> None:
    made_up = compile("(lambda: int('one'))()", "/lib/phicalc/made_up.py", "exec")
    case = verdicts.Case("model", "", lambda: exec(made_up, {}))
    outcome = verdicts.examine(case, 5)
    assert outcome.verdict == verdicts.FAILED
    assert outcome.signature.startswith("ValueError @ made_up.py")


def _work_for_ever() -> None:
    while True:
        pass


@pytest.mark.parametrize("work", [lambda: time.sleep(30), _work_for_ever], ids=["idle", "busy"])
def test_hang_is_a_failure(verdicts: ModuleType, work: Callable[[], None]) -> None:
    outcome = verdicts.examine(verdicts.Case("slow", "", work), 1)
    assert outcome.verdict == verdicts.FAILED
    assert outcome.signature.startswith("hang: slow")


def test_unsound_result_is_forgiven_with_a_warning_only(verdicts: ModuleType) -> None:
    def unsound() -> None:
        raise verdicts.Unsound("absurd energy: 1e9 eV")

    def warned() -> None:
        warnings.warn("outside the model", UserWarning, stacklevel=1)
        unsound()

    assert verdicts.examine(verdicts.Case("x", "", unsound), 5).verdict == verdicts.FAILED
    assert verdicts.examine(verdicts.Case("x", "", warned), 5).verdict == verdicts.WARNED


def test_accepting_what_must_be_refused_is_a_failure(verdicts: ModuleType) -> None:
    case = verdicts.Case("x", "", lambda: None, must_refuse=True)
    assert verdicts.examine(case, 5).signature == "accepted in silence: x"


@pytest.mark.parametrize("way", ["bit", "cut", "digit", "swap"])
def test_damage_is_damage(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from tools.fuzz.damage import damaged

    content = bytes(range(200))  # digits among them
    for seed in range(20):
        changed, place = damaged(content, way, np.random.default_rng(seed))
        assert changed != content
        assert changed[:place] == content[:place] or way == "swap"
    if way == "bit":
        differing = [a ^ b for a, b in zip(content, changed, strict=True) if a != b]
        assert [value.bit_count() for value in differing] == [1]


@pytest.mark.slow
def test_some_cases_of_each_part() -> None:
    """In a process of their own: shape checks would answer in phicalc's place."""
    cases = [f"{part}:{seed}" for part, seeds in CASES.items() for seed in seeds]
    only = [text for case in cases for text in ("--only", case)]
    command = [sys.executable, "-m", "tools.fuzz", *only]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, [line for line in done.stdout.splitlines() if "FAILED" in line]
    for part, seeds in CASES.items():
        assert done.stdout.count(f"{part}:") >= len(seeds)
