"""Exact restarts: an interrupted run ends bit for bit where an uninterrupted one does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms
from safetensors import safe_open
from safetensors.torch import save_file

from phicalc import cli
from phicalc.calculators.committee import CommitteeCalculator
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.md import MDConfig, MDInterrupted, read_log, restart, run_md
from phicalc.md.restart import Checkpoint
from phicalc.md.signals import STOP_SIGNALS, stop_requests
from phicalc.structures import write_structures

from .systems import ENSEMBLES, Springs, cluster, save_tiny_model, tiny_potential, waters

RAMPS = {
    "nve": {},
    **{name: {"temperature_end": 500.0} for name in ENSEMBLES if name != "nve"},
    **{
        name: {"temperature_end": 200.0, "pressure_end": 2e3}
        for name in ENSEMBLES
        if name.startswith("npt")
    },
}


class Killed(BaseException):
    """What no run can catch."""


class Dying(Springs):
    """Springs that kill the run at a certain evaluation."""

    def __init__(self, at: int, action=Killed):
        super().__init__()
        self.at, self.evaluations, self.action = at, 0, action

    def calculate(self, *args, **kwargs):
        self.evaluations += 1
        if self.evaluations == self.at:
            raise self.action
        super().calculate(*args, **kwargs)


Dying.__name__ = "Springs"  # to the checkpoint it is the calculator that goes on


def settings(**changes) -> MDConfig:
    return MDConfig(
        **{
            "timestep": 2.0, "steps": 50, "log_interval": 3, "trajectory_interval": 4,
            "checkpoint_interval": 15, "thermostat_time": 50.0, "barostat_time": 200.0, "seed": 4,
            **changes,
        }
    )  # fmt: skip


def log_without_time(folder) -> list[list[str]]:
    """Text of the log, but for the seconds."""
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    column = rows[0].index("wall_time_s")
    return [row[:column] + row[column + 1 :] for row in rows]


def assert_same_run(first: Atoms, other: Atoms, folder, other_folder):
    """Compare the bits of the end state, the log and the frames."""
    for name in ("positions", "momenta"):
        assert np.array_equal(first.arrays[name], other.arrays[name]), name
    assert np.array_equal(first.cell.array, other.cell.array)
    assert log_without_time(folder) == log_without_time(other_folder)
    for name in ("trajectory.extxyz", "final.extxyz"):
        assert (folder / name).read_bytes() == (other_folder / name).read_bytes()


def interrupt(atoms: Atoms, config: MDConfig, folder) -> None:
    """Start a run that dies, and leave half a line and half a frame, as kills may."""
    with pytest.raises(Killed):
        run_md(atoms, config, folder)
    with (folder / "log.csv").open("a") as log:
        log.write("48,0.0")
    with (folder / "trajectory.extxyz").open("a") as trajectory:
        trajectory.write("6\nLattice=")


@pytest.mark.parametrize("ramp", [False, True], ids=["", "ramp"])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_killed_run_ends_where_an_uninterrupted_one_does(name, ramp, tmp_path):
    config = settings(**ENSEMBLES[name], **(RAMPS[name] if ramp else {}))
    whole = cluster()
    run_md(whole, config, tmp_path / "whole")
    interrupt(cluster(Dying(at=45)), config, tmp_path / "parts")
    atoms = cluster()
    result = run_md(atoms, config, tmp_path / "parts", restart=True)
    assert result.first_step in (15, 30)  # Berendsen's barostat evaluates twice in a step
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_springs_have_a_memory_that_would_show(tmp_path):
    """The test of the test above: with other checkpoints the bits do differ."""
    first, other = cluster(), cluster()
    run_md(first, settings(), tmp_path / "a")
    run_md(other, settings(checkpoint_interval=14), tmp_path / "b")
    assert not np.array_equal(first.positions, other.positions)
    np.testing.assert_allclose(first.positions, other.positions, atol=1e-2)


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("settings_of", [{}, {"ensemble": "npt"}, {"log_pressure": True}])
def test_our_calculator_goes_on_exactly(settings_of, n_members, tmp_path):
    config = settings(
        timestep=0.2, steps=9, checkpoint_interval=4, committee_threshold=1e3, **settings_of
    )
    potentials = [tiny_potential(seed) for seed in range(1, n_members + 1)]

    def moving() -> Atoms:
        atoms = waters()
        one = n_members == 1
        atoms.calc = PhiCalculator(potentials[0]) if one else CommitteeCalculator(potentials)
        return atoms

    whole, killed, atoms = moving(), moving(), moving()
    run_md(whole, config, tmp_path / "whole")
    calculate, calls = killed.calc.calculate, []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) > 7:
            raise Killed
        calculate(*args, **kwargs)

    killed.calc.calculate = dying
    interrupt(killed, config, tmp_path / "parts")
    run_md(atoms, config, tmp_path / "parts", restart=True)
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_sums_of_calculators_forget_all_their_parts(tmp_path):
    whole, killed, atoms = (
        cluster(SumCalculator([Springs(), calculator]))
        for calculator in (Springs(), Dying(at=40), Springs())
    )
    config = settings()
    run_md(whole, config, tmp_path / "whole")
    interrupt(killed, config, tmp_path / "parts")
    run_md(atoms, config, tmp_path / "parts", restart=True)
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_constraints_and_fixed_atoms_go_on(tmp_path):
    def held(calculator) -> Atoms:
        atoms = cluster(calculator)
        atoms.set_constraint(FixAtoms([2]))
        return atoms

    whole, atoms, config = held(Springs()), held(Springs()), settings()
    run_md(whole, config, tmp_path / "whole")
    interrupt(held(Dying(at=40)), config, tmp_path / "parts")
    with pytest.raises(ValueError, match="structure.constraints"):
        run_md(cluster(), config, tmp_path / "parts", restart=True)
    run_md(atoms, config, tmp_path / "parts", restart=True)
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_a_run_may_die_again_and_again(tmp_path):
    whole, config = cluster(), settings(**ENSEMBLES["npt full"])
    run_md(whole, config, tmp_path / "whole")
    for at in (1, 3, 8, 20, 31, 19):
        with pytest.raises(Killed):
            run_md(cluster(Dying(at)), config, tmp_path / "parts", restart=True)
    atoms = cluster()
    run_md(atoms, config, tmp_path / "parts", restart=True)
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_ase_trajectories_go_on(tmp_path):
    config = settings(trajectory_format="traj")
    run_md(cluster(), config, tmp_path / "whole")
    with pytest.raises(Killed):
        run_md(cluster(Dying(at=45)), config, tmp_path / "parts")
    assert len(ase.io.read(tmp_path / "parts/trajectory.traj", ":")) == 11
    result = run_md(cluster(), config, tmp_path / "parts", restart=True)
    first = ase.io.read(tmp_path / "whole/trajectory.traj", ":")
    second = ase.io.read(result.trajectory, ":")
    assert [f.info["step"] for f in second] == [*range(0, 50, 4), 50]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert np.array_equal(one.get_momenta(), other.get_momenta())
        assert np.array_equal(one.get_forces(), other.get_forces())


@pytest.mark.parametrize("first", [30, 37])
def test_longer_runs_are_those_that_were_asked_for_at_once(first, tmp_path):
    config = settings(checkpoint_interval=first)
    whole, atoms = cluster(), cluster()
    run_md(whole, config, tmp_path / "whole")
    run_md(atoms, settings(checkpoint_interval=first, steps=first), tmp_path / "parts")
    assert (tmp_path / "parts/final.extxyz").exists()
    result = run_md(cluster(), config, tmp_path / "parts", restart=True)
    assert result.first_step == first
    assert log_without_time(tmp_path / "parts") == log_without_time(tmp_path / "whole")
    assert MDConfig(steps=50).steps == len(read_log(result.log)["step"]) * 3 - 4  # and the end


def test_finished_run_says_so_and_changes_nothing(tmp_path):
    first = run_md(cluster(), settings(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    atoms = cluster()
    result = run_md(atoms, settings(), tmp_path, restart=True)
    assert (result.first_step, result.seconds) == (50, 0.0)
    assert result.drift == first.drift
    np.testing.assert_allclose(atoms.positions, ase.io.read(result.final).positions, atol=1e-7)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before


def test_restart_without_a_run_starts_it(tmp_path):
    config, whole, atoms = settings(), cluster(), cluster()
    run_md(whole, config, tmp_path / "whole")
    assert run_md(atoms, config, tmp_path / "new", restart=True).first_step == 0
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "new")


def test_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    config, whole, atoms = settings(), cluster(), cluster()
    run_md(whole, config, tmp_path / "whole")
    interrupt(cluster(Dying(at=3)), config, tmp_path / "parts")
    (tmp_path / "parts/checkpoint.safetensors").unlink()
    run_md(atoms, config, tmp_path / "parts", restart=True)
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_a_longer_run_without_checkpoint_is_not_overwritten_by_a_restart(tmp_path):
    run_md(cluster(), settings(), tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(FileExistsError, match="no checkpoint to continue from"):
        run_md(cluster(), settings(), tmp_path, restart=True)
    assert len(ase.io.read(tmp_path / "trajectory.extxyz", ":")) == 14


def test_restart_and_overwrite_contradict_each_other(tmp_path):
    with pytest.raises(ValueError, match="choose one"):
        run_md(cluster(), settings(), tmp_path, restart=True, overwrite=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 310.0}, "temperature: 300.0 → 310.0"),
        ({"seed": 5, "timestep": 1.0}, "seed: 4 → 5; timestep: 2.0 → 1.0"),
        ({"checkpoint_interval": 10}, "checkpoint_interval: 15 → 10"),
        ({"steps": 20}, "steps: 20, but the run has done 30"),
    ],
)
def test_other_settings_are_refused_with_what_differs(changes, message, tmp_path):
    interrupt(cluster(Dying(at=45)), settings(), tmp_path)
    before = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(ValueError, match=message):
        run_md(cluster(), settings(**changes), tmp_path, restart=True)
    assert (tmp_path / "log.csv").read_bytes() == before


def test_guards_may_be_loosened(tmp_path):
    with pytest.raises(RuntimeError, match="max_temperature"):
        run_md(cluster(), settings(max_temperature=420.0, steps=300), tmp_path)
    result = run_md(cluster(), settings(steps=300), tmp_path, restart=True)
    assert 0 < result.first_step < 300
    assert not (tmp_path / "last_good.extxyz").exists()


def test_a_ramp_cannot_be_lengthened(tmp_path):
    run_md(cluster(), settings(temperature_end=400.0), tmp_path)
    with pytest.raises(ValueError, match="steps: 50 → 60"):
        run_md(cluster(), settings(temperature_end=400.0, steps=60), tmp_path, restart=True)


def test_other_atoms_are_refused(tmp_path):
    interrupt(cluster(Dying(at=45)), settings(), tmp_path)
    atoms = cluster()
    atoms.symbols[3] = "Ne"
    with pytest.raises(ValueError, match="structure.formula: 'Ar6' → 'Ar5Ne'"):
        run_md(atoms, settings(), tmp_path, restart=True)
    atoms = cluster()
    atoms.set_masses([1.0] * 6)
    with pytest.raises(ValueError, match="elements and masses"):
        run_md(atoms, settings(), tmp_path, restart=True)


def test_another_model_or_charge_is_refused(tmp_path):
    def moving(seed: int, **parameters) -> Atoms:
        atoms = waters()
        atoms.calc = PhiCalculator(save_tiny_model(tmp_path / f"model{seed}", seed), **parameters)
        return atoms

    config = settings(steps=2, timestep=0.2)
    run_md(moving(1), config, tmp_path / "run")
    with pytest.raises(ValueError, match="calculator.sha256"):
        run_md(moving(2), config, tmp_path / "run", restart=True)
    with pytest.raises(ValueError, match="calculator.dtype: 'float32' → 'float64'"):
        run_md(moving(1, dtype="float64"), config, tmp_path / "run", restart=True)
    charged = moving(1)
    charged.info["external_field"] = [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="structure.environment"):
        run_md(charged, config, tmp_path / "run", restart=True)


@pytest.mark.parametrize("left", [0, 100, -7])
def test_truncated_checkpoint_is_refused_and_nothing_lost(left, tmp_path):
    interrupt(cluster(Dying(at=45)), settings(), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    (tmp_path / "checkpoint.previous.safetensors").unlink()
    before = {name: (tmp_path / name).read_bytes() for name in ("log.csv", "trajectory.extxyz")}
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is damaged.*overwrite"):
        run_md(cluster(), settings(), tmp_path, restart=True)
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    whole, atoms = cluster(), cluster()
    run_md(whole, settings(), tmp_path / "whole")
    interrupt(cluster(Dying(at=45)), settings(), tmp_path / "parts")
    path = tmp_path / "parts/checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 4  # a bit of a momentum
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged.*continuing from the state before"):
        result = run_md(atoms, settings(), tmp_path / "parts", restart=True)
    assert result.first_step == 15
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_checkpoints_of_earlier_versions_are_continued_with_a_warning(tmp_path):
    """They have no checksum, and lack settings and fields that are newer."""
    whole, atoms = cluster(), cluster()
    run_md(whole, settings(), tmp_path / "whole")
    interrupt(cluster(Dying(at=45)), settings(), tmp_path / "parts")
    path = tmp_path / "parts/checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["state"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    document["version"] = 1
    for name in ("constraints", "start", "surroundings"):
        document.pop(name, None)
    del document["settings"]["velocities"]
    save_file(tensors, path, metadata={"state": json.dumps(document)})
    with pytest.warns(UserWarning, match="without a checksum"):
        run_md(atoms, settings(), tmp_path / "parts", restart=True)
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


def test_other_numbers_of_threads_and_versions_are_said(tmp_path, monkeypatch):
    interrupt(cluster(Dying(at=45)), settings(), tmp_path)
    found = restart.surroundings()
    monkeypatch.setattr(restart, "surroundings", lambda: {**found, "threads": 77, "torch": "0.1"})
    with pytest.warns(UserWarning, match=r"threads: \d+ → 77; torch: '.*' → '0.1'.*rounding only"):
        run_md(cluster(), settings(), tmp_path, restart=True)


def test_another_device_is_said(tmp_path, monkeypatch):
    interrupt(cluster(Dying(at=45)), settings(), tmp_path)
    described = restart.describe_calculator
    monkeypatch.setattr(
        restart, "describe_calculator", lambda atoms: {**described(atoms), "device": "cuda"}
    )
    with pytest.warns(UserWarning, match="calculator.device: None → 'cuda'.*rounding only"):
        run_md(cluster(), settings(), tmp_path, restart=True)


def test_another_starting_structure_is_said_to_be_ignored(tmp_path):
    whole, atoms = cluster(), cluster()
    run_md(whole, settings(), tmp_path / "whole")
    interrupt(cluster(Dying(at=45)), settings(), tmp_path / "parts")
    atoms.positions[0, 0] += 0.1
    with pytest.warns(UserWarning, match="is ignored, and the run continues from .* step 30"):
        run_md(atoms, settings(), tmp_path / "parts", restart=True)
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("name", ["log.csv", "trajectory.extxyz"])
def test_files_shorter_than_the_checkpoint_says_are_refused(name, tmp_path):
    interrupt(cluster(Dying(at=45)), settings(), tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=rf"{name} has 300 bytes, but had \d+ bytes"):
        run_md(cluster(), settings(), tmp_path, restart=True)


def test_checkpoint_keeps_every_bit(tmp_path):
    with pytest.raises(Killed):
        run_md(cluster(Dying(at=45)), settings(**ENSEMBLES["npt"]), tmp_path / "run")
    first = Checkpoint.load(tmp_path / "run/checkpoint.safetensors")
    first.save(tmp_path / "copy")
    second = Checkpoint.load(tmp_path / "copy")
    assert first.random_state == second.random_state
    assert first.integrator.keys() == second.integrator.keys()
    for key, value in first.integrator.items():
        assert value.dtype == np.float64
        assert np.array_equal(value, second.integrator[key])


def listen_to(request: pytest.FixtureRequest, number: signal.Signals) -> None:
    """Stop ignoring a signal until the end of the test."""
    if signal.getsignal(number) is signal.SIG_IGN:
        before = signal.signal(number, signal.SIG_DFL)
        request.addfinalizer(lambda: signal.signal(number, before))


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_signals_stop_after_the_step_and_the_run_goes_on(number, tmp_path, request):
    """Without a memory of the calculator a signal costs no bit either."""

    class Signalling(Springs):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if self.calls == 8:
                signal.raise_signal(number)

    Signalling.__name__ = "Springs"
    # The tests themselves may run under nohup, where SIGHUP is ignored.
    listen_to(request, number)
    handlers = [signal.getsignal(stop) for stop in STOP_SIGNALS]
    whole, atoms, config = cluster(Springs(0.0)), cluster(Springs(0.0)), settings()
    run_md(whole, config, tmp_path / "whole")
    with pytest.raises(MDInterrupted, match=rf"{number.name} after step 7.*restart") as caught:
        run_md(cluster(Signalling(0.0)), config, tmp_path / "parts")
    assert caught.value.exit_code == 128 + number
    assert handlers == [signal.getsignal(stop) for stop in STOP_SIGNALS]
    assert run_md(atoms, config, tmp_path / "parts", restart=True).first_step == 7
    assert_same_run(whole, atoms, tmp_path / "whole", tmp_path / "parts")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.signal_number is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_command_line_goes_on_after_signals(number, tmp_path, capfd):
    box = write_structures(tmp_path / "box.extxyz", [waters()])
    model = save_tiny_model(tmp_path / "tiny")
    options = (
        f"md {box} --model {model} --ensemble nvt --temperature 300 --steps 100 --seed 3 "
        "--timestep 0.01 --max-force 1e6 --checkpoint-interval 10 --log-interval 5 "
        "--trajectory-interval 10 --no-report --threads 1 --output"
    )

    def arguments(output: str, *more: str) -> list[str]:
        return [*options.split(), str(tmp_path / output), *more]

    command = [sys.executable, "-m", "phicalc.cli", *arguments("parts")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "parts/log.csv"
    while not (log.exists() and log.read_bytes().count(b"\n") > 5):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, message = process.communicate()
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert message.startswith("phicalc md: stopped by SIGTERM after step ")
    else:
        assert process.returncode == -9
    assert cli.main(arguments("parts", "--restart")) == 0
    assert "continued after step" in capfd.readouterr().out
    assert cli.main(arguments("parts", "--restart")) == 0
    assert "finished before: all 100 steps" in capfd.readouterr().out
    assert read_log(log)["step"].tolist() == [*range(0, 101, 5)]
    frames = ase.io.read(tmp_path / "parts/trajectory.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == [*range(0, 101, 10)]
    if number == signal.SIGKILL:
        assert cli.main(arguments("whole")) == 0
        for name in ("final.extxyz", "trajectory.extxyz"):
            parts, whole = ((tmp_path / f / name).read_bytes() for f in ("parts", "whole"))
            assert parts == whole
