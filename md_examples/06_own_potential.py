"""From a molecule to a potential of its own: sample, label with xTB, train, evaluate, relax, run.

    python md_examples/06_own_potential.py
    python md_examples/06_own_potential.py --quick --steps 3 --output trial

Ethanol at 300, 600 and 900 K by Langevin dynamics with GFN2-xTB, which also labels every twentieth
step; a small potential with charge equilibration learns energies, forces, charges and dipoles.
Trajectories of their own, with other random numbers, tell how good it is. Each stage takes up where
a killed run stopped. Needs `pip install "phicalc[label]"`.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from ase.build import minimize_rotation_and_translation, molecule

from phicalc import PhiCalculator
from phicalc.labelling import CalculatorSpec, DynamicsSampler, label
from phicalc.md import MDConfig, run_md
from phicalc.relax import relax
from phicalc.training import config_from_dict, evaluate_model, inspect_files, train

XTB = CalculatorSpec("gfn2-xtb")


def settings(data, output, quick):
    """Make the configuration of the training; in the shell this would be a YAML file."""
    network = {"name": "nequip", "channels": 16, "l_max": 2, "correlation": 2}
    if quick:
        network |= {"channels": 4, "l_max": 1, "correlation": 1, "layers": 1}
    return config_from_dict(
        {
            "output": str(output),
            "data": {"train": [str(data)], "valid_fraction": 0.1},
            # GFN2-xTB has dipoles of the atoms, too: charges alone cannot make its dipole
            "model": {
                "elements": ["H", "C", "O"],
                "cutoff": 4.0,
                "backbone": network,
                "atomic_dipoles": True,
            },
            "loss": {
                "energy": {"weight": 1.0, "final_weight": 10.0},
                "forces": {"weight": 1.0},
                "charges": {"weight": 1.0},
                "dipole": {"weight": 0.1},
            },
            "batch_size": 8,
            "max_epochs": 20 if quick else 25,
            "card": {"name": "ethanol", "level_of_theory": "GFN2-xTB"},
        }
    )


def main():
    """Go all the way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--steps", type=int, default=2000, help="of the dynamics at the end")
    parser.add_argument("--output", default="own_potential", help="folder for everything")
    arguments = parser.parse_args()
    folder, quick = Path(arguments.output), arguments.quick
    start = perf_counter()

    def stage(name):
        print(f"[{perf_counter() - start:6.1f} s] {name}", flush=True)

    stage("sampling and labelling")
    ethanol = molecule("CH3CH2OH")
    data = {}
    for name, frames, seed in (("train", 200, 0), ("test", 30, 1)):
        sampler = DynamicsSampler((300.0, 600.0, 900.0), frames=4 if quick else frames, seed=seed)
        data[name] = label([ethanol], XTB, folder / f"{name}.extxyz", sampler).path
    inspect_files([data["train"]], folder / "data")

    stage("training")
    model = train(settings(data["train"], folder / "training", quick)).model

    stage("errors on trajectories of their own")
    errors = evaluate_model(model, data["test"], folder / "errors")["metrics"]

    stage("relaxed structures")
    relaxed = {}
    for name in ("model", "xTB"):
        atoms = ethanol.copy()
        atoms.info["charge"] = 0.0
        atoms.calc = PhiCalculator(model) if name == "model" else XTB.make(XTB.prepare(atoms))
        found = relax(atoms, fmax=0.02, steps=arguments.steps)
        state = "converged" if found.converged else "not converged"
        print(f"{name}: {found.energy:.4f} eV, {state} after {found.steps} steps")
        relaxed[name] = atoms
    minimize_rotation_and_translation(relaxed["xTB"], relaxed["model"])
    shift = relaxed["model"].positions - relaxed["xTB"].positions
    print(f"distance of the two: {np.sqrt((shift**2).sum(axis=1).mean()):.4f} Å (rms)")

    stage("dynamics at 300 K")
    config = MDConfig(temperature=300, steps=arguments.steps, trajectory_interval=100)
    speed = run_md(relaxed["model"], config, folder / "md", overwrite=True).ns_per_day
    print(f"{config.steps} steps, {speed:.2f} ns/day; forces {errors['forces_rmse']:.1f} meV/Å")
    stage(f"everything is in {folder}")


if __name__ == "__main__":
    main()
