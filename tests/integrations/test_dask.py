"""Many structures over a dask cluster: the numbers of one process, in order."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from phicalc import cli
from phicalc.checkpoint import ModelCard, save_model
from phicalc.many import Failure, map_structures
from phicalc.md import read_log
from phicalc.structures import evaluate_structures, water_box, write_structures


@pytest.fixture(autouse=True, scope="module")
def workers_need_not_import_this_module():
    cloudpickle = pytest.importorskip("cloudpickle", reason='pip install "phicalc[distributed]"')
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


BOXES = [water_box(2, density=0.3, seed=seed) for seed in range(3)]
STRANGER = Atoms("Na2", [[0, 0, 0], [0, 0, 2]])


def evaluate(indices, frames, calculator) -> list[Atoms]:
    return evaluate_structures(frames, calculator)


def die(indices, frames, calculator) -> list[int]:
    """Kill the process for one structure."""
    if 1 in indices:
        os._exit(1)
    return [os.getpid()] * len(indices)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason='pip install "phicalc[distributed]"')
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def test_workers_give_the_numbers_of_this_process(cluster, calculator):
    frames = [BOXES[0], STRANGER, *BOXES[1:]]
    here = map_structures(evaluate, frames, calculator)
    there = map_structures(evaluate, frames, calculator, scheduler=cluster.scheduler_address)
    assert [atoms.calc for atoms in frames] == [None] * 4
    for one, other in zip(here, there, strict=True):
        if isinstance(one, Failure):
            assert str(one) == str(other)
            assert str(one).startswith("structure 1: unknown elements Na")
            continue
        assert one.positions.tolist() == other.positions.tolist()
        for name, value in one.calc.results.items():
            np.testing.assert_allclose(other.calc.results[name], value, atol=1e-9, err_msg=name)


class Counted(LennardJones):
    """Leaves a file wherever a copy arrives."""

    folder: Path

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        (self.folder / f"{os.getpid()}-{id(self)}").touch()


def test_the_calculator_does_not_travel_with_every_structure(cluster, tmp_path):
    calculator = Counted()
    calculator.folder = tmp_path
    processes = map_structures(
        lambda indices, *_: [os.getpid()] * len(indices), [Atoms("Ar")] * 20, calculator,
        scheduler=cluster.scheduler_address, chunk=1,
    )  # fmt: skip
    received = [int(path.name.split("-")[0]) for path in tmp_path.iterdir()]
    received = [process for process in received if process != os.getpid()]
    assert set(processes) <= set(received)
    assert len(set(received)) <= 2
    assert len(received) <= 4  # dask may pass a worker its copy twice, never one for each of 20


def test_a_worker_that_dies_is_a_failure_not_an_end():
    # Imported first: what is set before would take all of its settings away at the end.
    distributed = pytest.importorskip("distributed", reason='pip install "phicalc[distributed]"')
    dask = pytest.importorskip("dask")
    settings = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(**settings) as cluster,
    ):
        address = cluster.scheduler_address
        found = map_structures(die, BOXES, LennardJones(), scheduler=address, chunk=1)
    assert isinstance(found[1], Failure)
    assert found[1].index == 1
    assert len(found) == len(BOXES)


@pytest.fixture
def command(potential, tmp_path, monkeypatch):
    """Run a verb on three boxes of water and one structure that the model does not know."""
    monkeypatch.chdir(tmp_path)
    save_model("tiny", potential, ModelCard(name="tiny", license="MIT"))
    write_structures("all.extxyz", [BOXES[0], STRANGER, *BOXES[1:]])
    write_structures("water.extxyz", BOXES)
    return lambda *arguments: cli.main([*arguments, "--model", "tiny", "--dtype", "float64"])


def test_predict_over_a_scheduler(command, cluster, capsys):
    assert command("predict", "water.extxyz", "--output", "here.json") == 0
    here = capsys.readouterr().out
    address = ("--scheduler", cluster.scheduler_address)
    assert command("predict", "all.extxyz", "--output", "there.json", *address) == 2
    there = capsys.readouterr()
    assert "1 of 4 structures failed: structure 1: unknown elements Na" in there.err
    assert [line.split()[2] for line in there.out.splitlines()[1:4]] == [
        line.split()[2] for line in here.splitlines()[1:4]
    ]
    one, other = (json.loads(Path(f"{name}.json").read_text()) for name in ("here", "there"))
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(theirs["forces"], mine["forces"], atol=1e-9)


def test_relax_of_several_structures(command, capsys):
    options = ("--index", ":", "--steps", "2", "--output", "relaxed.json")
    assert command("relax", "all.extxyz", *options) == 2
    captured = capsys.readouterr()
    assert captured.out.count("NOT converged after 2 steps") == 3
    assert "structure 1: unknown elements Na" in captured.err
    assert len(json.loads(Path("relaxed.json").read_text())) == 3
    assert command("relax", "all.extxyz", *options, "--trajectory", "t.xyz") == 2
    assert "--trajectory is for one structure, got 4" in capsys.readouterr().err


def test_md_of_replicas_over_a_scheduler(command, cluster, capsys):
    options = ("--index", "0", "--steps", "3", "--max-force", "1000", "--log-interval", "1",
               "--replicas", "2", "--seed", "7")  # fmt: skip
    assert command("md", "water.extxyz", *options, "--output", "here", "--no-report") == 0
    address = ("--scheduler", cluster.scheduler_address)
    assert command("md", "water.extxyz", *options, "--output", "there", *address) == 0
    assert str(Path("there/001").resolve()) in capsys.readouterr().out
    logs = {
        (place, run): read_log(f"{place}/{run}/log.csv")["temperature_K"]
        for place in ("here", "there")
        for run in ("000", "001")
    }
    for run in ("000", "001"):
        np.testing.assert_array_equal(logs["there", run], logs["here", run])
        assert Path(f"there/{run}/report.png").is_file()
    assert not np.array_equal(logs["here", "000"], logs["here", "001"])
    assert json.loads(Path("there/001/config.json").read_text())["seed"] == 8
    assert command("md", "water.extxyz", "--replicas", "0") == 2
    assert "--replicas must be positive" in capsys.readouterr().err
