"""Starts and ends of runs: velocities, averages, progress, folders that move."""

from __future__ import annotations

import numpy as np
import pytest
from ase.md.velocitydistribution import thermalize_momenta

from phicalc import cli
from phicalc.md import MDConfig, progress, read_log, run_md
from phicalc.md.restart import Checkpoint
from phicalc.structures import read_structures, write_structures

from .systems import Springs, cluster, save_tiny_model, waters


def hot(kelvin: float = 1000.0):
    """Return a structure with velocities."""
    atoms = cluster()
    thermalize_momenta(atoms, kelvin, rng=np.random.default_rng(1))
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(kelvin / atoms.get_temperature()))
    return atoms


def test_velocities_of_another_temperature_are_said_to_be_kept(tmp_path):
    atoms = hot()
    with pytest.warns(UserWarning, match=r"has velocities of \d+ K, and they are kept.*300 K"):
        run_md(atoms, MDConfig(ensemble="nve", steps=1), tmp_path)
    assert read_log(tmp_path / "log.csv")["temperature_K"][0] > 600


def test_velocities_are_drawn_or_kept_as_the_settings_say(tmp_path):
    momenta = hot().get_momenta()
    run_md(hot(), MDConfig(ensemble="nve", steps=0, velocities="keep"), tmp_path / "keep")
    run_md(hot(), MDConfig(ensemble="nve", steps=0, velocities="new"), tmp_path / "new")
    run_md(cluster(), MDConfig(ensemble="nve", steps=0), tmp_path / "auto")
    kept, new, auto = (
        Checkpoint.load(tmp_path / name / "checkpoint.safetensors").motion["momenta"]
        for name in ("keep", "new", "auto")
    )
    assert np.array_equal(kept, momenta)
    assert np.array_equal(new, auto)
    assert not np.array_equal(new, momenta)


def test_command_line_says_that_velocities_are_kept_and_draws_others(tmp_path, capfd):
    atoms = waters()
    thermalize_momenta(atoms, 310, rng=np.random.default_rng(1))
    box = write_structures(tmp_path / "box.extxyz", [atoms])
    model = save_tiny_model(tmp_path / "tiny")
    arguments = ["md", str(box), "--model", str(model), "--steps", "0", "--no-report", "--output"]
    assert cli.main([*arguments, str(tmp_path / "a"), "--velocities", "keep"]) == 0
    assert "velocities: those of the file, " in capfd.readouterr().out
    assert cli.main([*arguments, str(tmp_path / "b"), "--velocities", "new"]) == 0
    output = capfd.readouterr().out
    assert "velocities:" not in output
    assert "mean temperature: " in output
    assert "mean density: 0.2 g/cm³" in output
    kept, new = (read_structures(tmp_path / name / "final.extxyz")[0] for name in "ab")
    np.testing.assert_allclose(kept.get_momenta(), atoms.get_momenta(), atol=1e-7)
    assert not np.allclose(new.get_momenta(), atoms.get_momenta(), atol=1e-3)


def test_averages_of_the_run_are_those_of_its_log(tmp_path):
    config = MDConfig(ensemble="npt", timestep=2.0, steps=40, log_interval=1, barostat_time=500.0)
    result = run_md(cluster(), config, tmp_path)
    log = read_log(result.log)
    assert result.temperature.value == pytest.approx(log["temperature_K"][8:].mean())
    assert result.pressure.value == pytest.approx(log["pressure_bar"][8:].mean())
    assert result.density.value == pytest.approx(log["density_g_cm3"][8:].mean())
    assert result.temperature.error > 0
    atoms = cluster()
    atoms.pbc = False
    result = run_md(atoms, MDConfig(steps=2), tmp_path / "open")
    assert (result.pressure, result.density) == (None, None)


def test_progress_without_a_terminal_is_told_in_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    run_md(cluster(), MDConfig(steps=4, log_interval=2), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[3].startswith("step 3 of 4: ")
    assert lines[3].endswith(" ns/day")
    run_md(cluster(), MDConfig(steps=4), tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def test_a_terminal_that_is_closed_does_not_end_the_run(tmp_path, monkeypatch):
    class Closed:
        """Standard error of a closed terminal."""

        def isatty(self):
            return self.terminal

        def write(self, *_):
            raise OSError(5, "Input/output error")

        flush = write

    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    stream = Closed()
    for stream.terminal in (False, True):
        monkeypatch.setattr("sys.stderr", stream)
        run_md(cluster(), MDConfig(steps=4), tmp_path, overwrite=True)
        monkeypatch.undo()
        monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)


class Moving(Springs):
    """Springs that do something at their tenth evaluation."""

    def __init__(self, action):
        super().__init__(0.0)
        self.total, self.action = 0, action

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.total += 1
        if self.total == 10:
            self.action()


@pytest.mark.parametrize("trajectory_format", ["extxyz", "traj"])
def test_a_run_whose_folder_is_moved_leaves_a_new_run_there_alone(trajectory_format, tmp_path):
    old, moved = tmp_path / "run", tmp_path / "moved"
    config = MDConfig(timestep=2.0, steps=30, log_interval=1, trajectory_interval=1,
                      checkpoint_interval=7, trajectory_format=trajectory_format)  # fmt: skip
    other = MDConfig(timestep=1.0, steps=3)

    def move():
        old.rename(moved)
        run_md(cluster(), other, old)

    whole = run_md(cluster(Springs(0.0)), config, tmp_path / "whole")
    result = run_md(cluster(Moving(move)), config, old)
    assert result.log == moved / "log.csv"
    for name in ("log", "trajectory", "final"):
        assert getattr(result, name).parent == moved
    assert (moved / "final.extxyz").read_bytes() == whole.final.read_bytes()
    assert result.temperature == whole.temperature
    assert Checkpoint.load(moved / "checkpoint.safetensors").step == 30
    assert Checkpoint.load(old / "checkpoint.safetensors").step == 3
    assert run_md(cluster(), other, old, restart=True).first_step == 3
