"""What every test gets: data from outside, seeded random numbers, an untouched default dtype."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
#: Calls of each function in each test whose arguments and result have their shapes checked.
SHAPE_CHECKS = 2
BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"

os.environ.setdefault("MPLBACKEND", "Agg")  # no window, whatever the machine
settings.register_profile("phicalc", deadline=None, derandomize=True)
settings.load_profile("phicalc")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the markers that follow from where a test lies or what it asks for."""
    for item in items:
        if BENCHMARKS in item.path.parents:
            item.add_marker(pytest.mark.benchmark)
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared_data)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data(name)`` is the path of a reference data file, or skips the test.

    The folder is ``$PHICALC_DATA``, or ``shared/data`` beside the repository.
    """
    given = os.environ.get("PHICALC_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"

    def find(name: str) -> Path:
        path = folder / name
        if path.is_file():
            return path
        if given:
            pytest.fail(f"PHICALC_DATA={given} has no file {name}; correct or unset it")
        pytest.skip(f"reference data {name} is not here; set PHICALC_DATA to its folder")

    return find


@pytest.fixture(autouse=True, scope="session")
def nothing_is_compiled_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide functions that the user has compiled: results would depend on his cache."""
    os.environ["PHICALC_CACHE"] = str(tmp_path_factory.mktemp("compiled"))


class _ChecksShapesAtFirst(type(jaxtyping.config)):
    """Shapes in the signature of each function are checked in its first calls, and later no more.

    jaxtyping asks before every call of a function whether its checks are off; the function is the
    variable ``fn`` of the frame that asks.
    """

    calls: Counter[Callable] | None = None
    asked = False

    @property
    def jaxtyping_disable(self) -> bool:
        function = sys._getframe(1).f_locals.get("fn")
        if self.asked or self.calls is None or function is None:
            return self.asked
        self.calls[function] += 1
        return self.calls[function] > SHAPE_CHECKS

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, asked: bool) -> None:
        self.asked = asked


@pytest.fixture(autouse=True)
def shapes_are_checked_at_first() -> Iterator[None]:
    """Check the first `SHAPE_CHECKS` calls of each function in each test: all would double it."""
    config = jaxtyping.config
    asked = config.jaxtyping_disable
    config.__class__ = _ChecksShapesAtFirst
    config.calls, config.asked = Counter(), asked
    yield
    config.calls, config.asked = None, asked


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run and any order of the tests."""
    return np.random.default_rng(20260101)


@pytest.fixture(autouse=True)
def torch_is_left_as_found() -> Iterator[None]:
    """Seed torch, keep it on one thread, and see that a test leaves the default dtype alone."""
    torch.manual_seed(20260101)
    torch.set_num_threads(1)
    yield
    assert torch.get_default_dtype() == torch.float32, "the process-wide default dtype was changed"
