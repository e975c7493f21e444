"""Liquid water at 300 K and 1 bar: temperature and pressure held, the volume moves (NPT).

    python md_examples/04_npt_water.py
    python md_examples/04_npt_water.py --steps 100000 --output density

A density needs a long run: with the default steps this only shows how it is done.
"""

import argparse

import numpy as np

from phicalc import PhiCalculator
from phicalc.md import MDConfig, initialise_velocities, make_report, read_log, run_md
from phicalc.relax import relax
from phicalc.structures import water_box


def equilibrate(atoms, steps, folder):
    """Bring the lattice of molecules to 300 K at constant volume first.

    A barostat answers to pressure at once; an unrelaxed structure has kilobars of it, and the box
    would swing wildly. Near a minimum half of the kinetic energy becomes potential energy, so the
    velocities are drawn at twice the temperature.
    """
    relax(atoms, fmax=0.2, steps=min(40, steps))
    initialise_velocities(atoms, 600.0, np.random.default_rng(1))
    config = MDConfig(
        ensemble="nvt",
        temperature=300.0,  # K
        timestep=0.5,  # fs
        thermostat_time=20.0,  # fs: very strong, to take the heat away quickly
        steps=steps,
    )
    run_md(atoms, config, folder, overwrite=True)


def summarise(log):
    """Print averages over the second half of the log."""
    late = slice(len(log["step"]) // 2, None)
    for name, label, unit in (
        ("temperature_K", "temperature", "K"),
        ("pressure_bar", "pressure", "bar"),
        ("density_g_cm3", "density", "g/cm³"),
    ):
        values = log[name][late]
        print(f"{label:<12} {values.mean():10.3f} ± {values.std():9.3f} {unit}")
    energy = log["conserved_energy_eV"]
    print(f"conserved energy: {energy[0]:.5f} eV at first, {energy[-1]:.5f} eV at last")


def main():
    """Equilibrate at constant volume, then let the volume move."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="water", help="name or folder of a model")
    parser.add_argument("--steps", type=int, default=300, help="time steps of 0.5 fs under NPT")
    parser.add_argument("--output", default="npt_water", help="folder for log and trajectory")
    arguments = parser.parse_args()

    atoms = water_box(64, density=1.0, seed=0)
    atoms.calc = PhiCalculator(arguments.model)
    equilibrate(atoms, arguments.steps // 2, f"{arguments.output}/equilibration")

    config = MDConfig(
        ensemble="npt",  # isotropic Martyna–Tobias–Klein: the cube stays a cube
        temperature=300.0,  # K
        pressure=1.0,  # bar
        timestep=0.5,  # fs
        thermostat_time=50.0,  # fs
        barostat_time=500.0,  # fs: slow compared with the molecules' own motion
        steps=arguments.steps,
        log_interval=5,
    )
    # The velocities of the equilibration are kept: only atoms at rest get new ones.
    result = run_md(atoms, config, arguments.output, overwrite=True)
    summarise(read_log(result.log))

    picture = make_report(arguments.output, title="64 H₂O, NPT at 300 K and 1 bar")
    print(f"log:        {result.log}")
    print(f"trajectory: {result.trajectory}")
    print(f"picture:    {picture}")


if __name__ == "__main__":
    main()
