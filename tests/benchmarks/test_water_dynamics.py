"""Long runs of the shipped water model: `make bench ARGS="-k water_dynamics"` (an hour or two).

NVT: 20 ps at 300 K stay a liquid. NVE: 10 ps in float64 conserve the energy. Logs, trajectories
and pictures stay in ``runs/``; ``PHICALC_MODEL`` names another model folder to run.
"""

from __future__ import annotations

import ase.io
import numpy as np
import pytest

from phicalc.analysis.rdf import pair_distribution
from phicalc.md import MDConfig, make_report, read_log, run_md

from .water_start import RUNS, equilibrated


def test_water_dynamics_nvt() -> None:
    atoms = equilibrated("float32", steps=1000)
    config = MDConfig(
        temperature=300.0, timestep=1.0, steps=20_000, thermostat_time=200.0, seed=2,
        log_interval=20, trajectory_interval=50,
    )  # fmt: skip
    result = run_md(atoms, config, RUNS / "nvt", overwrite=True)
    picture = make_report(RUNS / "nvt")
    frames = ase.io.read(result.trajectory, ":")[200:]  # the second half
    distribution = pair_distribution(frames, ("O", "O"))
    peak = distribution.radii[distribution.values.argmax()]
    temperature = read_log(result.log)["temperature_K"][500:]
    oxygen = np.concatenate([f.get_charges()[f.numbers == 8] for f in frames])
    speed = result.seconds / config.steps * 1e3
    print(f"\nNVT 20 ps: {speed:.1f} ms/step, {temperature.mean():.1f} K")
    print(f"first O–O peak g({peak:.3f} Å) = {distribution.values.max():.2f}; picture {picture}")
    print(f"charge of O {oxygen.mean():.3f} ± {oxygen.std():.3f} e")
    assert peak == pytest.approx(2.75, abs=0.1)
    assert temperature.mean() == pytest.approx(300, abs=10)


def test_water_dynamics_nve() -> None:
    atoms = equilibrated("float64", steps=1000)
    config = MDConfig(ensemble="nve", timestep=0.5, steps=20_000, log_interval=10)
    result = run_md(atoms, config, RUNS / "nve", overwrite=True)
    log = read_log(result.log)
    time, energy = log["time_ps"], log["conserved_energy_eV"] / len(atoms) * 1e3
    drift = np.polyfit(time, energy, 1)[0]
    noise = np.std(energy - np.polyval(np.polyfit(time, energy, 1), time))
    print(f"\nNVE 10 ps, 0.5 fs, float64: {result.seconds / config.steps * 1e3:.1f} ms/step")
    print(f"drift {drift:+.5f} meV/atom/ps, fluctuation {noise:.5f} meV/atom, "
          f"mean temperature {log['temperature_K'].mean():.0f} K")  # fmt: skip
    assert abs(drift) < 0.02
