"""A barrier with the nudged elastic band: a water molecule of the liquid swaps its hydrogens.

    python md_examples/07_turning_water.py
    python md_examples/07_turning_water.py --images 9 --steps 200 --output band/

One molecule of a relaxed box turns by 180° about its axis of symmetry. Its hydrogen bonds break
and form again with the hydrogens swapped, so that the end is the start in other words: the energies
of both ends are the same, which checks the band. The band itself is ASE's; each image has a
calculator of its own, which keeps its neighbour lists and charges from step to step.
"""

import argparse
from pathlib import Path

import numpy as np
from ase.mep import NEB
from ase.optimize import FIRE

from phicalc import PhiCalculator
from phicalc.relax import relax
from phicalc.structures import snapshot, water_box, write_structures


def turned(atoms, molecule, angle):
    """Copy with one molecule turned about the bisector of its hydrogens by an angle in degrees."""
    oxygen, first, second = (3 * molecule + i for i in range(3))
    copy = atoms.copy()
    bisector = copy.get_distance(oxygen, first, mic=True, vector=True)
    bisector = bisector + copy.get_distance(oxygen, second, mic=True, vector=True)
    part = copy[[oxygen, first, second]]
    part.positions = part.positions[0] + part.get_distances(0, [0, 1, 2], mic=True, vector=True)
    part.rotate(angle, bisector, center=part.positions[0])
    copy.positions[[oxygen, first, second]] = part.positions
    return copy


def band_of(start, molecule, n_images, model):
    """Start, images between, and the same structure with two hydrogens swapped."""
    images = [turned(start, molecule, angle) for angle in np.linspace(0, 180, n_images)]
    first, second = 3 * molecule + 1, 3 * molecule + 2
    images[-1] = start.copy()
    images[-1].positions[[first, second]] = start.positions[[second, first]]
    for image in images:
        image.calc = PhiCalculator(model)
    return images


def main():
    """Relax a box, pull a band through it, and print the energies along the way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="water", help="name or folder of a model")
    parser.add_argument("--images", type=int, default=7, help="structures along the way")
    parser.add_argument("--steps", type=int, default=60, help="most steps of the band")
    parser.add_argument("--fmax", type=float, default=0.08, help="largest force at the end, eV/Å")
    parser.add_argument("--output", default="turning_water", help="folder for the band")
    arguments = parser.parse_args()

    start = water_box(8, density=0.95, seed=0)
    start.calc = PhiCalculator(arguments.model)
    relaxed = relax(start, fmax=0.03, steps=5 * arguments.steps)
    print(f"box: 8 H₂O, relaxed to {relaxed.max_force:.3f} eV/Å in {relaxed.steps} steps")

    images = band_of(start, 0, arguments.images, arguments.model)
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=False)
    with FIRE(band, logfile=None) as dynamics:
        converged = dynamics.run(fmax=arguments.fmax, steps=arguments.steps)

    energies = np.array([image.get_potential_energy() for image in images])
    energies -= energies[0]
    print(f"band: {'converged' if converged else 'not converged'} after {dynamics.nsteps} steps")
    for number, energy in enumerate(energies):
        print(f"image {number}: {energy:8.3f} eV  {'#' * round(40 * max(energy, 0))}")
    print(f"barrier: {energies.max():.3f} eV; ends differ by {abs(energies[-1]) * 1000:.2f} meV")

    output = write_structures(
        Path(arguments.output) / "band.extxyz", [snapshot(image) for image in images]
    )
    print(f"written: {output}")


if __name__ == "__main__":
    main()
