"""Salt in water: `make bench ARGS="-k salt_water"` (an hour).

Errors on the frames of ``nacl_water_revpbe0_d3.xyz.gz`` that no training saw, and of the same ions
by MP2 and r²SCAN where their files are there (levels differ: that is no error of the model);
charges of ions; the mean force between Na⁺ and Cl⁻ in water, held at distances, and its integral;
structure and diffusion of a solution. PHICALC_MODEL names the model (``salt-water`` by default),
PHICALC_BENCH_PS the length of the long run in ps (100 by default), PHICALC_BENCH_PS_PAIR that at
each distance (5). Runs stay in PHICALC_BENCH_FOLDER (``runs/salt_water`` by default).

Hydrogen is heavy (`make_hydrogen_heavy`): positions are averaged, and diffusion of ions depends
little on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms

from phicalc import PhiCalculator
from phicalc.analysis import block_average, diffusion, pair_distribution, read_trajectory
from phicalc.md import MDConfig, initialise_velocities, read_log, run_md
from phicalc.relax import relax
from phicalc.structures import water_box

from .water_start import make_hydrogen_heavy

pytestmark = pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")

MODEL = os.environ.get("PHICALC_MODEL", "salt-water")
FOLDER = Path(os.environ.get("PHICALC_BENCH_FOLDER", "runs/salt_water"))
LENGTH = float(os.environ.get("PHICALC_BENCH_PS", "100"))
PAIR_LENGTH = float(os.environ.get("PHICALC_BENCH_PS_PAIR", "5"))
DISTANCES = (2.5, 2.7, 2.9, 3.2, 3.6, 4.1, 4.7, 5.3, 6.0, 7.0, 8.0)
TEMPERATURE, TIMESTEP = 300.0, 1.5


def calculator(dtype: str = "float32", compile: bool = True) -> PhiCalculator:
    """Return the model's calculator."""
    return PhiCalculator(MODEL, dtype=dtype, compile=compile)


def solution(n_pairs: int, n_water: int, density: float) -> Atoms:
    """Replace molecules of water, spread evenly, by ions of either sign; density in g/cm³."""
    atoms = water_box(n_water + 2 * n_pairs)
    spread = np.linspace(0, n_water + 2 * n_pairs, 2 * n_pairs, endpoint=False).astype(int)
    gone = []
    for number, molecule in enumerate(spread):
        atoms.symbols[3 * molecule] = ("Na", "Cl")[number % 2]
        gone += [3 * molecule + 1, 3 * molecule + 2]
    del atoms[gone]
    atoms.calc = calculator()
    now = atoms.get_masses().sum() / atoms.get_volume() * units._amu * 1e27  # g/cm³
    atoms.set_cell(atoms.cell * (now / density) ** (1 / 3), scale_atoms=True)
    ions = np.isin(atoms.symbols, ("Na", "Cl"))
    make_hydrogen_heavy(atoms)
    masses = atoms.get_masses()
    masses[ions] = Atoms(atoms.symbols[ions]).get_masses()
    atoms.set_masses(masses)
    return atoms


def test_salt_water_errors(shared_data, record: Callable[[str, float], None]) -> None:
    """By number of ion pairs: energies per atom and forces, root mean square."""
    frames = ase.io.read(shared_data("nacl_water_revpbe0_d3.xyz.gz"), ":")
    calc, rows, charges = calculator("float64", compile=False), {}, {}
    missed, net = [], []
    for frame in (frame for frame in frames if frame.info["split"] != "train"):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True, calculator=calc)
        energy = (atoms.get_potential_energy() - frame.get_potential_energy()) / len(atoms)
        pairs = int((atoms.symbols == "Na").sum())
        for key in (pairs, "all"):
            rows.setdefault(key, []).append((energy, atoms.get_forces() - frame.get_forces()))
        error, sodium = rows["all"][-1][1], atoms.symbols == "Na"
        rows.setdefault("without Na", []).append((energy, error[~sodium]))
        missed.append(-error[sodium].sum(0))
        net.append(frame.get_forces().sum(0))
        for symbol in set(atoms.symbols):
            charges.setdefault(symbol, []).append(atoms.get_charges()[atoms.symbols == symbol])
    print(f"\n{MODEL}, unseen frames by ion pairs: number, energy (meV/atom), forces (meV/Å)")
    for key, found in sorted(rows.items(), key=str):
        energy = 1e3 * float(np.sqrt(np.mean([e**2 for e, _ in found])))
        forces = 1e3 * float(np.sqrt(np.mean(np.concatenate([f for _, f in found]) ** 2)))
        print(f"  {key!s:<10} {len(found):4d} {energy:8.2f} {forces:8.1f}")
        record(f"{MODEL} {key} forces (meV/Å)", forces)
        assert forces < 100
    missed, net = np.ravel(missed), np.ravel(net)
    print(
        f"  what predictions lack on sodium, over the net force of the labels: "
        f"{missed @ net / (net @ net):.3f}, correlation {np.corrcoef(missed, net)[0, 1]:.3f}"
    )
    for symbol, found in sorted(charges.items()):
        every = np.concatenate(found)
        print(f"  charge of {symbol}: {every.mean():+.3f} ± {every.std():.3f} e")


def test_salt_water_ions(record: Callable[[str, float], None]) -> None:
    """Na and Cl in vacuum: energy and charges as they part; no jump."""
    calc = calculator("float64", compile=False)
    lengths = np.arange(2.2, 12.01, 0.1)
    energies, charges = [], []
    for length in lengths:
        atoms = Atoms("NaCl", [[0, 0, 0], [length, 0, 0]], calculator=calc)
        energies.append(atoms.get_potential_energy())
        charges.append(atoms.get_charges()[0])
    bent = np.abs(np.diff(energies, 2)).max()
    print(f"\n{MODEL}, NaCl in vacuum: charge of Na at 2.4, 4, 8, 12 Å", end=" ")
    print(*(f"{charges[int(np.abs(lengths - r).argmin())]:+.3f}" for r in (2.4, 4, 8, 12)))
    print("energy above the minimum (eV) at 4, 6, 8, 10, 12 Å", end=" ")
    print(*(f"{energies[int(np.abs(lengths - r).argmin())] - min(energies):.2f}"
            for r in (4, 6, 8, 10, 12)), f"; largest second difference {bent:.3f} eV")  # fmt: skip
    record(f"{MODEL} charge of Na at 12 Å (e)", float(charges[-1]))
    assert np.isfinite(energies).all()


def run(atoms: Atoms, name: str, length: float, **settings) -> Path:
    """Run dynamics of so many ps unless that was done, and return the folder."""
    folder = FOLDER / f"{Path(MODEL).name}_{name}"
    config = MDConfig(
        temperature=TEMPERATURE, timestep=TIMESTEP, steps=round(1000 * length / TIMESTEP), seed=5,
        velocities="keep", log_interval=40, **settings,
    )  # fmt: skip
    if not (folder / "final.extxyz").exists():
        run_md(atoms, config, folder, restart=(folder / "checkpoint.safetensors").exists())
    return folder


def mean_force(distance: float) -> tuple[float, float]:
    """Mean force in eV/Å that pushes the ions apart at a distance in Å, and its error."""
    atoms = solution(1, 64, 1.0)
    ions = [int(np.flatnonzero(atoms.symbols == symbol)[0]) for symbol in ("Na", "Cl")]
    axis = np.ones(3) / np.sqrt(3)  # images are far along the diagonal
    away = atoms.positions[ions[0]] + distance * axis - atoms.positions[ions[1]]
    atoms.positions[ions[1]] += away
    oxygen = np.flatnonzero(atoms.symbols == "O")
    lengths = atoms.get_distances(ions[1], oxygen, mic=True)
    if lengths.min() < 2.4:  # a molecule is there: it goes where the ion was
        molecule = oxygen[lengths.argmin()] + np.arange(3)
        atoms.positions[molecule] -= away
    atoms.set_constraint(FixAtoms(ions))
    relax(atoms, fmax=0.5, steps=150)
    initialise_velocities(atoms, TEMPERATURE, np.random.default_rng(5))
    folder = run(atoms, f"pair_{distance:g}", PAIR_LENGTH, thermostat_time=100.0,
                 trajectory_interval=4)  # fmt: skip
    forces = [
        frame.get_forces(apply_constraint=False)[ions]
        for frame in ase.io.iread(next(folder.glob("trajectory.*")))
    ]
    forces = np.array(forces[int(0.3 * len(forces)) :])
    estimate = block_average(0.5 * (forces[:, 1] - forces[:, 0]) @ axis)
    return estimate.value, estimate.error


def test_salt_water_pair(record: Callable[[str, float], None]) -> None:
    """Mean force between the ions of a pair in 64 waters, and the potential that it makes."""
    found = np.array([mean_force(distance) for distance in DISTANCES])
    middle = 0.5 * (found[1:, 0] + found[:-1, 0]) * np.diff(DISTANCES)
    potential = 1e3 * np.append(np.cumsum(middle[::-1])[::-1], 0.0)
    print(f"\n{MODEL}, Na–Cl in water at {TEMPERATURE:g} K: distance (Å), mean force (eV/Å), "
          "potential of mean force from the last distance on (meV)")  # fmt: skip
    for distance, (force, error), energy in zip(DISTANCES, found, potential, strict=True):
        print(f"  {distance:.1f} {force:+.3f} ± {error:.3f} {energy:+7.0f}")
    record(f"{MODEL} contact pair below 8 Å (meV)", float(potential.min()))
    assert np.isfinite(found).all()


def test_salt_water_solution(record: Callable[[str, float], None]) -> None:
    """Four pairs in 56 waters at the density of the training data: 100 ps, structure, diffusion."""
    atoms = solution(4, 56, 1.077)
    relax(atoms, fmax=0.3, steps=150)
    initialise_velocities(atoms, TEMPERATURE, np.random.default_rng(3))
    run(atoms, "equilibrate", 5.0, thermostat_time=50.0)
    atoms.calc = calculator()
    folder = run(atoms, "nvt", LENGTH, thermostat="bussi", thermostat_time=500.0,
                 trajectory_interval=60)  # fmt: skip
    temperatures = read_log(folder / "log.csv")["temperature_K"]
    trajectory = next(folder.glob("trajectory.*"))
    frames = ase.io.read(trajectory, ":")
    print(f"\n{MODEL}, {LENGTH:g} ps at {TEMPERATURE:g} K: {temperatures.mean():.1f} K on average")
    for pair in (("Na", "O"), ("Cl", "O"), ("Cl", "H"), ("Na", "Cl"), ("O", "O")):
        print(f"  g({pair[0]}–{pair[1]}): " + shell(frames, pair))
    for each in diffusion(read_trajectory(ase.io.iread(trajectory))):
        value = each.coefficient
        print(f"  diffusion of {each.symbol}: {value.value:.2f} ± {value.error:.2f} 1e-9 m²/s")
    longest = max(longest_bond(frame) for frame in frames)
    print(f"  longest bond of hydrogen: {longest:.2f} Å")
    record(f"{MODEL} longest bond of hydrogen (Å)", longest)
    assert longest < 1.4
    assert abs(temperatures.mean() - TEMPERATURE) < 10


def shell(frames: list[Atoms], pair: tuple[str, str]) -> str:
    """First maximum, the minimum behind it, and the number of neighbors up to there."""
    found = pair_distribution(frames, pair)
    top = int(found.values.argmax())
    behind = slice(top, int(np.searchsorted(found.radii, found.radii[top] + 1.6)))
    low = top + int(found.values[behind].argmin())
    count = np.mean([neighbors(frame, pair, found.radii[low]) for frame in frames[::5]])
    return (
        f"maximum {found.values[top]:.2f} at {found.radii[top]:.2f} Å, minimum "
        f"{found.values[low]:.2f} at {found.radii[low]:.2f} Å, {count:.2f} neighbors"
    )


def neighbors(atoms: Atoms, pair: tuple[str, str], radius: float) -> float:
    """Mean number of atoms of the second element within a radius in Å of one of the first."""
    one, other = (np.flatnonzero(atoms.symbols == symbol) for symbol in pair)
    near = atoms.get_all_distances(mic=True)[np.ix_(one, other)] < radius
    return float(near.sum(1).mean()) - (pair[0] == pair[1])


def longest_bond(atoms: Atoms) -> float:
    """Return the largest distance in Å of a hydrogen atom to the oxygen next to it."""
    hydrogen, oxygen = (np.flatnonzero(atoms.symbols == symbol) for symbol in "HO")
    return float(atoms.get_all_distances(mic=True)[np.ix_(hydrogen, oxygen)].min(1).max())
