"""Compilation in another process, which nobody waits for."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from phicalc.compiled import BackgroundPredictor, CompiledPredictor, background
from phicalc.derivatives import predict
from phicalc.graph import AtomicGraph, from_ase
from phicalc.potential import Potential, build_potential

from .tiny import flat_config


@pytest.fixture
def potential() -> Potential:
    config = flat_config(
        elements=("H", "C", "O"), cutoff=3.0, layers=1, channels=4, l_max=0, correlation=1,
        head="none",
    )  # fmt: skip
    return build_potential(config, seed=1).double().eval().requires_grad_(False)


def graph_of(potential: Potential, atoms: Atoms) -> AtomicGraph:
    return potential.prepare(from_ase(atoms, potential.cutoff))


def wait_for(predictor: BackgroundPredictor) -> None:
    """Until the other process has ended."""
    end = time.monotonic() + 500
    while predictor._child is not None and not predictor._child.has_ended():
        assert time.monotonic() < end
        time.sleep(0.05)


def instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the other process do something else."""
    monkeypatch.setattr(background, "_COMMAND", (sys.executable, "-c", code))


@pytest.mark.thorough
def test_predictions_change_over_when_functions_are_there(potential, tmp_path, caplog) -> None:
    graph = graph_of(potential, molecule("CH3CH2OH"))
    predictor, plain = BackgroundPredictor(potential, tmp_path), predict(potential, graph)
    first = predictor(graph)
    assert torch.equal(first.forces, plain.forces)  # nothing was there
    assert "going on uncompiled" in caplog.text
    wait_for(predictor)
    later = predictor(graph)
    assert "compiled functions are used from here on" in caplog.text
    assert list(tmp_path.glob("*.pt2"))
    assert predictor.inner.missing(graph, False) is None
    torch.testing.assert_close(later.forces, plain.forces, rtol=0, atol=1e-9)
    compiled = CompiledPredictor(potential, "auto", tmp_path)(graph)
    assert torch.equal(later.forces, compiled.forces)


def test_failure_is_said_once_and_not_repeated(potential, tmp_path, monkeypatch, caplog) -> None:
    instead(monkeypatch, "raise SystemExit('no compiler here')")
    graph = graph_of(potential, molecule("H2O"))
    predictor, plain = BackgroundPredictor(potential, tmp_path), predict(potential, graph)
    for _ in range(4):
        assert torch.equal(predictor(graph).forces, plain.forces)
        wait_for(predictor)
    messages = [record.message for record in caplog.records if record.name == "phicalc"]
    assert len(messages) == 2
    assert "failed, going on uncompiled: no compiler here" in messages[1]


def test_kinds_are_compiled_one_after_the_other(potential, tmp_path, monkeypatch) -> None:
    instead(monkeypatch, "import sys; sys.stdin.buffer.read()")
    box = Atoms("H2O", positions=molecule("H2O").positions, cell=[6, 6, 6], pbc=True)
    predictor = BackgroundPredictor(potential, tmp_path)
    graphs = [graph_of(potential, atoms) for atoms in (molecule("H2O"), box)]
    for graph, stress in zip(graphs, (False, True), strict=True):
        predictor(graph, stress=stress)
    assert len(predictor.asked) == 1  # the second kind waits for the first
    wait_for(predictor)
    for graph, stress in zip(graphs, (False, True), strict=True):
        predictor(graph, stress=stress)
    assert len(predictor.asked) == 2
    wait_for(predictor)


def test_copies_have_no_process_of_another(potential, tmp_path, monkeypatch) -> None:
    instead(monkeypatch, "import sys; sys.stdin.buffer.read()")
    predictor = BackgroundPredictor(potential, tmp_path)
    predictor(graph_of(potential, molecule("H2O")))
    other = copy.deepcopy(predictor)
    assert other._child is None
    assert not other.asked
    wait_for(predictor)


@pytest.mark.skipif(sys.platform == "win32", reason="processes there keep their parent")
def test_other_process_ends_with_this_one(tmp_path: Path) -> None:
    # A parent that starts a child and is gone; the child writes down when it notices.
    code = (
        "import os, subprocess, sys\n"
        "child = 'import os, sys; from phicalc.compiled import background;"
        " print(os.getpid(), flush=True); background._end_with(int(sys.argv[1]), os._exit)'\n"
        "found = subprocess.Popen([sys.executable, '-c', child, str(os.getpid())],"
        " stdout=subprocess.PIPE)\n"
        "print(int(found.stdout.readline()), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    child = int(done.stdout)
    end = time.monotonic() + 60
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
