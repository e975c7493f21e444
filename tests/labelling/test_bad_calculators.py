"""Calculators that crash, hang, or give nonsense cost frames, not runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from phicalc.labelling import CalculatorSpec, RattleSampler, label
from phicalc.workers import TaskLostError, workers_of


class Moody(Calculator):
    """EMT, but for structures of a certain number of atoms."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        match len(atoms):
            case 2:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 3:
                time.sleep(60)
            case 4:
                raise ZeroDivisionError("no density")
            case 7:
                raise SystemExit(3)
        other = EMT()
        atoms = atoms.copy()
        atoms.calc = other
        self.results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if len(atoms) == 5:
            self.results["forces"][0, 0] = np.nan


SPEC = CalculatorSpec("tests.labelling.test_bad_calculators:Moody")


def chain(n_atoms: int) -> Atoms:
    return Atoms(f"Cu{n_atoms}", [[2.4 * i, 0, 0] for i in range(n_atoms)])


def test_a_bad_frame_is_named_and_the_others_stay(tmp_path: Path) -> None:
    structures = [chain(n) for n in (1, 2, 3, 4, 5, 6)]
    result = label(structures, SPEC, tmp_path / "data.extxyz", timeout=4.0, progress=False)
    errors = {failure["structure"]: failure["error"] for failure in result.failures}
    assert result.n_frames == 2
    assert set(errors) == {1, 2, 3, 4}
    assert "TaskLostError: its process ended by signal 11 (SIGSEGV)" in errors[1]
    assert "TaskLostError: no result within 4 s" in errors[2]
    assert "ZeroDivisionError: no density" in errors[3]
    assert "forces not finite" in errors[4]


def test_calculators_that_exit_cost_a_frame(tmp_path: Path) -> None:
    structures = [chain(n) for n in (7, 6)]
    result = label(structures, SPEC, tmp_path / "data.extxyz", progress=False)
    assert [failure["error"] for failure in result.failures] == ["SystemExit: 3"]
    assert result.n_frames == 1


def test_limits_change_no_label(tmp_path: Path) -> None:
    sampler, files = RattleSampler(copies=3), []
    for name, timeout in (("with", 60.0), ("without", None)):
        output = tmp_path / f"{name}.extxyz"
        result = label([chain(6)], SPEC, output, sampler, timeout=timeout, progress=False)
        files.append(result.path.read_bytes())
    assert files[0] == files[1]


def test_processes_are_ended_with_what_they_started(tmp_path: Path) -> None:
    """A calculator is often a program that Python waits for."""
    with workers_of(1, limit=1.0) as team:
        future = team.executor.submit(os.system, f"sleep 30; touch {tmp_path}/late & wait")
        with pytest.raises(TaskLostError, match="no result within 1 s"):
            future.result()
        assert team.executor.submit(pow, 2, 5).result() == 32
    assert not running("sleep 30; touch")


def _wait_for_a_program() -> None:
    with workers_of(1, limit=60.0) as team:
        team.executor.submit(os.system, "sleep 40; true left behind").result()


def test_programs_end_with_a_run_that_is_killed() -> None:
    """Else they would go on writing into the folder that the next run uses."""
    child = get_context("fork").Process(target=_wait_for_a_program)
    child.start()
    wait_until(lambda: running("sleep 40; true"))
    child.kill()
    child.join()
    wait_until(lambda: not running("sleep 40; true"))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def running(words: str) -> bool:
    """Whether a process of these words runs."""
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.is_file()]
    return any(words.encode() in line.replace(b"\0", b" ") for line in lines)


def test_leaving_early_ends_what_runs() -> None:
    start = time.monotonic()
    with workers_of(2, limit=60.0) as team:
        running = team.executor.submit(time.sleep, 50)
        team.executor.submit(pow, 2, 2).result()  # both have begun
    assert time.monotonic() - start < 30
    with pytest.raises(TaskLostError, match="SIGKILL"):
        running.result()


@pytest.mark.parametrize("arguments", [{"limit": 0.0}, {"limit": 1.0, "shared": 3}])
def test_limits_that_make_no_sense(arguments) -> None:
    with (
        pytest.raises(ValueError, match=r"limit must be positive \(seconds\)"),
        workers_of(**arguments),
    ):
        pass
