"""Rock salt at 300 K and 1 bar: temperature and pressure held, the volume moves (NPT).

    python md_examples/04_npt_salt.py
    python md_examples/04_npt_salt.py --steps 20000 --output expansion

A mean volume needs a long run: with the default steps this only shows how it is done. The pressure
is as good as the stress that a model was trained on: `phicalc info` says whether it was.
"""

import argparse

from ase.build import bulk

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
    parser.add_argument("--model", default="rocksalts", help="name or folder of a model")
    parser.add_argument("--steps", type=int, default=300, help="time steps of 2 fs under NPT")
    parser.add_argument("--output", default="npt_salt", help="folder for log and trajectory")
    arguments = parser.parse_args()

    atoms = bulk("NaCl", "rocksalt", a=5.5, cubic=True).repeat(2)  # near the minimum of `rocksalts`
    atoms.calc = PhiCalculator(arguments.model)

    config = MDConfig(
        ensemble="npt",  # isotropic Martyna–Tobias–Klein: the cube stays a cube
        temperature=300.0,  # K
        pressure=1.0,  # bar
        timestep=2.0,  # fs
        thermostat_time=100.0,  # fs
        barostat_time=500.0,  # fs: slow compared with the ions' own motion
        steps=arguments.steps,
        log_interval=5,
    )
    result = run_md(atoms, config, arguments.output, overwrite=True)
    summarise(read_log(result.log))

    picture = make_report(arguments.output, title="64 ions of NaCl, NPT at 300 K and 1 bar")
    print(f"log:        {result.log}")
    print(f"trajectory: {result.trajectory}")
    print(f"picture:    {picture}")


if __name__ == "__main__":
    main()
