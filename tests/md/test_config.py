"""Settings of a run: defaults, and combinations that make no sense."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from phicalc.md import MDConfig


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({}, "langevin"),
        ({"ensemble": "nve"}, "nve"),
        ({"ensemble": "npt"}, "npt"),
        ({"ensemble": "npt", "thermostat": "nose-hoover"}, "npt"),
        ({"thermostat": "bussi"}, "bussi"),
        ({"thermostat": "berendsen"}, "berendsen"),
        ({"ensemble": "npt", "thermostat": "berendsen"}, "npt-berendsen"),
        ({"ensemble": "npt", "cell_motion": "full"}, "npt"),
    ],
)
def test_method(settings, method):
    assert MDConfig(**settings).method == method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ensemble": "NVT"}, "'ensemble' must be one of .*got 'NVT'. Did you mean 'nvt'[?]$"),
        ({"thermostat": "andersen"}, "'thermostat' must be one of .*'bussi'.*got 'andersen'"),
        ({"ensemble": "nve", "thermostat": "bussi"}, "must be left out"),
        ({"ensemble": "npt", "thermostat": "langevin"}, "must be one of .*nose-hoover"),
        ({"timestep": 0.0}, "'timestep' must be positive, got 0"),
        ({"timestep": float("nan")}, "'timestep' must be a finite number, got nan"),
        ({"steps": -1}, "'steps' must be ≥ 0, got -1"),
        ({"log_interval": 0}, "'log_interval' must be ≥ 1, got 0"),
        ({"temperature": -3.0}, "'temperature' must be ≥ 0, got -3"),
        ({"thermostat": "bussi", "temperature": 0.0}, "temperature must be above 0 K"),
        ({"thermostat": "bussi", "temperature_end": 0.0}, "temperature must be above 0 K"),
        ({"temperature_end": -1.0}, "'temperature_end' must be ≥ 0, got -1"),
        ({"ensemble": "nve", "temperature_end": 400.0}, "temperature_end needs a thermostat"),
        ({"pressure_end": 2.0}, "pressure_end needs a barostat"),
        ({"pressure": float("nan")}, "'pressure' must be a finite number, got nan"),
        ({"checkpoint_interval": 0}, "'checkpoint_interval' must be ≥ 1, got 0"),
        ({"trajectory_format": "xtc"}, "'trajectory_format' must be one of .*'traj'.*got 'xtc'"),
        ({"cell_motion": "full"}, "cell_motion 'full' needs ensemble 'npt'"),
        ({"ensemble": "npt", "cell_motion": "shape"}, "'cell_motion' must be one of .*got 'shape'"),
        ({"ensemble": "npt", "axes": "c"}, "axes='c' needs cell_motion 'axes'"),
        ({"ensemble": "npt", "cell_motion": "axes", "axes": "aa"}, "axes must name some of"),
        ({"ensemble": "npt", "cell_motion": "axes", "axes": "x"}, "axes must name some of"),
        (
            {"ensemble": "npt", "thermostat": "berendsen", "cell_motion": "full"},
            "berendsen moves no angles",
        ),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MDConfig(**settings)


def test_settings_cannot_be_changed_later():
    with pytest.raises(FrozenInstanceError):
        MDConfig().steps = 5


def test_targets_move_in_a_straight_line():
    config = MDConfig(
        ensemble="npt", temperature=100.0, temperature_end=300.0, pressure=5.0, steps=10
    )
    assert config.is_ramp
    assert config.targets(0) == (100.0, 5.0)
    assert config.targets(5) == (200.0, 5.0)
    assert config.targets(10) == (300.0, 5.0)
    assert not MDConfig().is_ramp
