"""Liquid water at 300 K: 64 molecules, constant volume and temperature (NVT).

    python md_examples/02_nvt_water.py
    python md_examples/02_nvt_water.py --steps 20000 --output long_run

Leaves a log (CSV), a trajectory (extended XYZ, with forces and charges) and a picture.
"""

import argparse

import numpy as np

from phicalc import PhiCalculator
from phicalc.md import MDConfig, initialise_velocities, make_report, read_log, run_md
from phicalc.relax import relax
from phicalc.structures import water_box

TEMPERATURE = 300.0  # K


def starting_structure(calculator, relax_steps):
    """Return 64 moving waters at 1 g/cm³, on a lattice and turned at random, then relaxed a little.

    The relaxation takes out the worst of the random start, which would all become heat. Near a
    minimum about half of the kinetic energy turns into potential energy within femtoseconds, so
    the velocities are drawn at twice the temperature.
    """
    atoms = water_box(64, density=1.0, seed=0)
    atoms.calc = calculator
    before = atoms.get_potential_energy()
    result = relax(atoms, fmax=0.2, steps=relax_steps)
    gained = (before - result.energy) / 64
    print(f"start: {len(atoms)} atoms, {result.steps} steps downhill, {gained:.3f} eV/molecule")
    initialise_velocities(atoms, 2 * TEMPERATURE, np.random.default_rng(1))
    return atoms


def summarise(result, n_atoms):
    """Print averages over the second half of the run, from its log."""
    log = read_log(result.log)
    late = slice(len(log["step"]) // 2, None)
    change = np.ptp(log["conserved_energy_eV"][late]) / n_atoms * 1000
    print(f"simulated     {log['time_ps'][-1]:8.3f} ps in {result.seconds:.0f} s")
    print(f"speed         {result.ns_per_day:8.3f} ns/day")
    print(f"temperature   {log['temperature_K'][late].mean():8.1f} K (second half)")
    print(f"conserved energy stays within {change:.3f} meV/atom (second half)")


def main():
    """Equilibrate a little, run, summarise, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="water", help="name or folder of a model")
    parser.add_argument("--steps", type=int, default=500, help="time steps of 0.5 fs")
    parser.add_argument("--output", default="nvt_water", help="folder for log and trajectory")
    arguments = parser.parse_args()

    calculator = PhiCalculator(arguments.model)
    atoms = starting_structure(calculator, relax_steps=min(40, arguments.steps))

    config = MDConfig(
        ensemble="nvt",
        thermostat="langevin",  # or "bussi", "nose-hoover"
        temperature=TEMPERATURE,
        velocities="keep",  # those of starting_structure
        timestep=0.5,  # fs: hydrogen is light
        thermostat_time=50.0,  # fs: strong, since the run is short; 500 for dynamical properties
        steps=arguments.steps,
        log_interval=5,
        trajectory_interval=10,
        seed=1,
    )
    result = run_md(atoms, config, arguments.output, overwrite=True)
    summarise(result, len(atoms))

    picture = make_report(arguments.output, title="64 H₂O, NVT at 300 K")
    print(f"log:        {result.log}")
    print(f"trajectory: {result.trajectory}")
    print(f"picture:    {picture}")


if __name__ == "__main__":
    main()
