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
    ],
)
def test_method(settings, method):
    assert MDConfig(**settings).method == method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ensemble": "NVT"}, "ensemble must be one of .*'nvt'.*got 'NVT'"),
        ({"thermostat": "berendsen"}, "thermostat must be one of .*'bussi'.*got 'berendsen'"),
        ({"ensemble": "nve", "thermostat": "bussi"}, "must be left out"),
        ({"ensemble": "npt", "thermostat": "langevin"}, "must be one of .*nose-hoover"),
        ({"timestep": 0.0}, "timestep must be positive, got 0"),
        ({"timestep": float("nan")}, "timestep must be positive, got nan"),
        ({"steps": -1}, "steps must not be negative, got -1"),
        ({"log_interval": 0}, "log_interval must be positive"),
        ({"temperature": -3.0}, "temperature must not be negative"),
        ({"thermostat": "bussi", "temperature": 0.0}, "temperature must be above 0 K"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MDConfig(**settings)


def test_settings_cannot_be_changed_later():
    with pytest.raises(FrozenInstanceError):
        MDConfig().steps = 5
