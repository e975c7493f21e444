"""An ensemble in a file outside the package: found by its import path, restarted exactly."""

from __future__ import annotations

import numpy as np
import pytest

from phicalc.md import MDConfig, read_log, run_md

from .systems import Springs, cluster

ANDERSEN = """
import numpy as np
from ase.md.andersen import Andersen as ASEAndersen
from phicalc.md.ensembles.kind import Ensemble, counting


class Counting(ASEAndersen):
    transferred_energy = 0.0

    def step(self, forces=None):
        before = self.atoms.get_total_energy()
        result = super().step(forces)
        self.transferred_energy += self.atoms.get_total_energy() - before
        return result


class Andersen(Ensemble):
    name = "andersen"
    ensemble = "nvt"
    thermostat = "andersen"
    drives_all_motion = True

    def build(self, atoms, motion, rng, n_free):
        dynamics = Counting(atoms, motion.timestep, temperature_K=motion.temperature,
                            andersen_prob=motion.timestep / motion.thermostat_time, fixcm=False,
                            rng=rng)

        def set_targets(temperature, _):
            dynamics.set_temperature(temperature)

        return counting(dynamics, n_free, set_targets)


class Other:
    pass
"""


class Killed(BaseException):
    """What no run can catch."""


class Dying(Springs):
    """Springs that kill the run at the 45th evaluation."""

    evaluations = 0

    def calculate(self, *args, **kwargs):
        self.evaluations += 1
        if self.evaluations == 45:
            raise Killed
        super().calculate(*args, **kwargs)


Dying.__name__ = "Springs"


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """Make a module that somebody else has written."""
    (tmp_path / "strangers_ensembles.py").write_text(ANDERSEN)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_foreign_ensemble_runs_and_goes_on_exactly(tmp_path):
    config = MDConfig(
        thermostat="strangers_ensembles:Andersen", timestep=2.0, steps=60, checkpoint_interval=15,
        temperature=400.0, thermostat_time=10.0,
    )  # fmt: skip
    assert config.method == "andersen"
    whole, atoms = cluster(), cluster()
    result = run_md(whole, config, tmp_path / "whole")
    assert np.ptp(read_log(result.log)["temperature_K"]) > 10
    with pytest.raises(Killed):
        run_md(cluster(Dying()), config, tmp_path / "parts")
    assert run_md(atoms, config, tmp_path / "parts", restart=True).first_step == 30
    assert np.array_equal(atoms.positions, whole.positions)
    assert np.array_equal(atoms.get_momenta(), whole.get_momenta())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thermostat": "strangers_ensembles:Missing"}, "has no class 'Missing'"),
        ({"thermostat": "no_such_module:Andersen"}, "no module named 'no_such_module'"),
        ({"thermostat": "strangers_ensembles:Other"}, "must be a subclass of Ensemble"),
        ({"thermostat": "strangers_ensembles:Andersen", "ensemble": "npt"}, "is for ensemble"),
    ],
)
def test_import_paths_to_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MDConfig(**settings)
