"""Water samples the ensembles it should: `make bench ARGS="-k water_ensembles"` (an hour or two).

NVT: temperature and its fluctuations, kinetic energies and equipartition for each thermostat.
NPT: density at 1 bar; volume and its fluctuations at two pressures, each telling the same
compressibility. Every deviation is printed in standard errors of correlated series (sigma), and
none may exceed `SIGMAS`. Single precision; runs stay in ``runs/``; ``PHICALC_MODEL`` names another
model. ``-k density`` runs the density alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import ase.io
import numpy as np
import pytest
import scipy.stats
from ase import Atoms, units

from phicalc.analysis import Estimate, block_average
from phicalc.md import MDConfig, MDResult, make_report, read_log, run_md
from phicalc.md.velocities import degrees_of_freedom

from .water_start import MODEL, RUNS, equilibrated, make_hydrogen_heavy

TEMPERATURE = 300.0  # K
PRESSURES = (1.0, 2000.0)  # bar
SIGMAS = 4.0
DISCARDED = 0.2  # of each run


@pytest.mark.parametrize("thermostat", ["langevin", "bussi", "nose-hoover"])
def test_water_ensembles_nvt(thermostat: str) -> None:
    atoms = start()
    config = MDConfig(
        thermostat=thermostat, temperature=TEMPERATURE, timestep=1.0, steps=8_000,
        thermostat_time=100.0, seed=3, log_interval=10, trajectory_interval=50, log_pressure=True,
    )  # fmt: skip
    folder = RUNS / f"nvt_{thermostat}"
    result = run_md(atoms, config, folder, overwrite=True)
    print(f"\n{described(config, result)}")
    frames = late(ase.io.read(result.trajectory, ":"))
    noisy = thermostat == "langevin"  # drives the centre of mass too
    weak = {z: lag_of_momenta(frames, z, config.timestep) for z in (1, 8)}
    mean_lag = (2 * weak[1] + weak[8]) / 3
    # Langevin's noise sets the temperature of the positions, the others that of the momenta.
    aim = TEMPERATURE * (1 - mean_lag if noisy else 1.0)
    deviations = temperature_of(
        folder, aim, degrees_of_freedom(atoms, all_motion=config.kind.drives_all_motion)
    )
    for number, lag in weak.items():
        kelvin = block_average([species_temperature(f, number, noisy) for f in frames])
        name = f"temperature of {'H' if number == 1 else 'O'} (K)"
        deviations.append(compare(name, kelvin, aim * (1 - lag) / (1 - mean_lag)))
    assert max(map(abs, deviations)) < SIGMAS


def test_water_ensembles_density() -> None:
    folder = npt(PRESSURES[0])
    log = read_log(folder / "log.csv")
    density, pressure = (block_average(late(log[c])) for c in ("density_g_cm3", "pressure_bar"))
    print(f"density {density.value:.4f} ± {density.error:.4f} g/cm³ at {PRESSURES[0]:g} bar"
          f"{'' if density.converged else ' (run too short for the error)'}; "
          f"picture {make_report(folder)}")  # fmt: skip
    deviations = temperature_of(folder, TEMPERATURE, 3 * 192 - 3)
    deviations.append(compare("pressure (bar)", pressure, PRESSURES[0]))
    assert max(map(abs, deviations)) < SIGMAS


def test_water_ensembles_volume() -> None:
    """Two pressures: ln P₂(V)/P₁(V) has the slope −ΔP/kT, whatever the liquid.

    For normal distributions the difference of the means over the mean variance is thus ΔP/kT
    (Shirts, J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p).
    """
    volumes = [late(read_log(npt(p) / "log.csv")["volume_A3"]) for p in PRESSURES]
    means = [block_average(v) for v in volumes]
    variances = [block_average((v - v.mean()) ** 2) for v in volumes]
    for pressure, mean, variance in zip(PRESSURES, means, variances, strict=True):
        print(f"{pressure:g} bar: volume {mean.value:.1f} ± {mean.error:.1f} Å³, "
              f"σ {np.sqrt(variance.value):.1f} ± "
              f"{variance.error / 2 / np.sqrt(variance.value):.1f} Å³")  # fmt: skip
    difference = difference_of(*means)
    variance = Estimate(
        (variances[0].value + variances[1].value) / 2, np.hypot(*[v.error for v in variances]) / 2
    )
    slope = difference.value / variance.value
    error = slope * np.hypot(difference.error / difference.value, variance.error / variance.value)
    step = (PRESSURES[1] - PRESSURES[0]) * units.bar
    expected = step / (units.kB * TEMPERATURE)
    by_mean = difference.value / np.mean([m.value for m in means]) / step
    by_fluctuation = by_mean * expected / slope
    print(f"compressibility {1e5 * units.bar * by_mean:.2f} from the means, "
          f"{1e5 * units.bar * by_fluctuation:.2f} from the fluctuations (1e-5/bar)")  # fmt: skip
    deviation = compare("slope of ln P2/P1 (1/Å³)", Estimate(slope, error), expected)
    assert abs(deviation) < SIGMAS


@cache
def start() -> Atoms:
    """Water at 300 K and 1 g/cm³, after 5 ps.

    Less is not enough: the ordered start sets heat free in slow motions, oxygen's first, which
    thermostats that scale all velocities alike take out of the fast ones.
    """
    return equilibrated("float32", steps=10_000, pressure=True)


@cache
def npt(pressure: float) -> Path:
    """Run 15 ps at constant pressure after 2 ps to find the density; returns the folder.

    Hydrogen is heavy, as `make_hydrogen_heavy` says.
    """
    atoms = start().copy()
    atoms.calc = start().calc
    velocities, masses = atoms.get_velocities(), atoms.get_masses()
    make_hydrogen_heavy(atoms)
    lighter = np.minimum(1.0, masses / atoms.get_masses())
    atoms.set_velocities(velocities * np.sqrt(lighter)[:, None])  # hydrogen as hot as before
    common = {
        "ensemble": "npt", "temperature": TEMPERATURE, "pressure": pressure, "timestep": 1.0,
        "seed": 4, "thermostat_time": 100.0,
    }  # fmt: skip
    find = MDConfig(**common, thermostat="berendsen", steps=2000, barostat_time=500.0)
    run_md(atoms, find, RUNS / f"npt_{pressure:g}_start", overwrite=True)
    config = MDConfig(
        **common, steps=15_000, barostat_time=500.0, log_interval=10, trajectory_interval=50
    )
    folder = RUNS / f"npt_{pressure:g}"
    result = run_md(atoms, config, folder, overwrite=True)
    frames = late(ase.io.read(result.trajectory, ":"))
    lag = sum(lag_of_momenta(frames, z, 1.0) * 3 * np.sum(atoms.numbers == z) for z in (1, 8))
    shift = lag * units.kB * TEMPERATURE / (3 * atoms.get_volume()) / units.bar
    print(f"\n{described(config, result)}; the time step acts as {shift:.0f} bar more")
    return folder


def described(config: MDConfig, result: MDResult) -> str:
    """Say what ran, how long, and how well it conserved its energy."""
    target = f" at {config.pressure:g} bar" if config.ensemble == "npt" else ""
    return (
        f"{MODEL}, {config.method}{target}, {config.steps * config.timestep / 1000:g} ps: "
        f"{1e3 * result.seconds / config.steps:.1f} ms/step, drift {result.drift:+.4f} meV/atom/ps"
    )


def late(series):
    """Leave out the start."""
    return series[int(DISCARDED * len(series)) :]


def lag_of_momenta(frames: list[Atoms], number: int, timestep: float) -> float:
    """Part of kT that momenta at full steps of velocity Verlet lack, for one element.

    For harmonic motion ⟨p²/m⟩ = kT (1 − ω²Δt²/4) (Leimkuhler and Matthews, J. Chem. Phys. 138,
    174102 (2013), doi:10.1063/1.4802990), and ω² follows from ⟨F²⟩ = m ω² kT.
    """
    chosen = frames[0].numbers == number
    forces = np.array([frame.get_forces()[chosen] for frame in frames])
    square = np.mean(forces**2) / frames[0].get_masses()[chosen][0]
    return float(square * (timestep * units.fs) ** 2 / (4 * units.kB * TEMPERATURE))


def species_temperature(frame: Atoms, number: int, moving: bool) -> float:
    """Temperature of the atoms of one element; `moving` with the motion of the centre of mass."""
    chosen, masses = frame.numbers == number, frame.get_masses()
    energy = (frame.get_momenta()[chosen] ** 2).sum() / 2 / masses[chosen][0]
    resting = 0.0 if moving else masses[chosen].sum() / masses.sum()
    return float(2 * energy / (3 * (chosen.sum() - resting) * units.kB))


def temperature_of(folder: Path, aim: float, n_free: int) -> list[float]:
    """Compare temperature, its variance and the distribution of kinetic energies; deviations."""
    kelvin = late(read_log(folder / "log.csv")["temperature_K"])
    mean, variance = block_average(kelvin), block_average((kelvin - kelvin.mean()) ** 2)
    spread = Estimate(np.sqrt(variance.value), variance.error / 2 / np.sqrt(variance.value))
    # Independent samples: as far apart as the error of the variance says.
    squares = (kelvin - kelvin.mean()) ** 2
    stride = max(1, round(variance.error**2 * len(kelvin) / squares.var()))
    canonical = scipy.stats.gamma(n_free / 2, scale=2 * aim / n_free)
    pvalue = float(scipy.stats.kstest(kelvin[::stride], canonical.cdf).pvalue)
    print(f"kinetic energies against the gamma distribution: p = {pvalue:.2f} "
          f"({len(kelvin[::stride])} samples)")  # fmt: skip
    assert pvalue > 1e-4
    return [
        compare("temperature (K)", mean, aim),
        compare("fluctuation of temperature (K)", spread, aim * np.sqrt(2 / n_free)),
    ]


def compare(name: str, found: Estimate, expected: float) -> float:
    """Print a figure beside what it should be; the deviation in standard errors."""
    deviation = (found.value - expected) / found.error
    print(f"{name:<32} {found.value:9.4g} ± {found.error:<7.2g} expected {expected:9.4g} "
          f"({deviation:+.1f} sigma{'' if found.converged else ', or less'})")  # fmt: skip
    return deviation


def difference_of(first: Estimate, second: Estimate) -> Estimate:
    """First minus second."""
    return Estimate(first.value - second.value, float(np.hypot(first.error, second.error)))
