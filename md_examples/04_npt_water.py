"""Liquid water at 300 K and 1 bar: temperature and pressure held, the volume moves (NPT).

    python md_examples/04_npt_water.py
    python md_examples/04_npt_water.py --steps 100000 --output density

A density needs a long run: with the default steps this only shows how it is done. The start,
water_64.extxyz, is the end of 20 ps at constant volume with this model (with its velocities): a
barostat answers to pressure at once, and an unrelaxed structure has kilobars of it.
"""

import argparse
from pathlib import Path

from ase.io import read

from phicalc import PhiCalculator
from phicalc.md import MDConfig, make_report, read_log, run_md


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
    """Let the volume move."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="water", help="name or folder of a model")
    parser.add_argument("--steps", type=int, default=300, help="time steps of 0.5 fs under NPT")
    parser.add_argument("--output", default="npt_water", help="folder for log and trajectory")
    arguments = parser.parse_args()

    atoms = read(Path(__file__).with_name("water_64.extxyz"))
    atoms.calc = PhiCalculator(arguments.model)

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
    # The velocities of the file are kept: only atoms at rest get new ones.
    result = run_md(atoms, config, arguments.output, overwrite=True)
    summarise(read_log(result.log))

    picture = make_report(arguments.output, title="64 H₂O, NPT at 300 K and 1 bar")
    print(f"log:        {result.log}")
    print(f"trajectory: {result.trajectory}")
    print(f"picture:    {picture}")


if __name__ == "__main__":
    main()
