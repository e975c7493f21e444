"""Water beside MB-pol and nature: `make bench ARGS="-k water_properties"` (hours).

Errors and molecular pressures on the frames of ``water_mbpol.xyz.gz`` that no training saw
(``split`` not ``train``); densities at 1 bar; structure and diffusion of the liquid; ice Ih; a
slab in vacuum. PHICALC_MODEL names the model (``water-small`` by default), PHICALC_BENCH_PS the
length of the longest run in ps (100 by default; the others are parts of it). Runs stay in
PHICALC_BENCH_FOLDER (``runs/water_properties`` by default), finished ones are not repeated.

Hydrogen is heavy (`make_hydrogen_heavy`) where only positions are averaged; the diffusion
coefficient is that of true masses, in steps of 0.5 fs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc import PhiCalculator
from phicalc.analysis import block_average, diffusion, pair_distribution, read_trajectory
from phicalc.md import MDConfig, initialise_velocities, read_log, run_md
from phicalc.relax import relax
from phicalc.structures import water_box

from .water_start import make_hydrogen_heavy

pytestmark = pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")

MODEL = os.environ.get("PHICALC_MODEL", "water-small")
FOLDER = Path(os.environ.get("PHICALC_BENCH_FOLDER", "runs/water_properties"))
LENGTH = float(os.environ.get("PHICALC_BENCH_PS", "100"))
#: Temperature in K, density of water at 1 bar in g/cm³ (IAPWS-95), part of `LENGTH`.
DENSITIES = {298.0: (0.997, 1.0), 277.0: (1.000, 0.3), 330.0: (0.985, 0.3), 370.0: (0.960, 0.3)}
DISCARDED = 0.2
VISCOSITY = 0.89e-3  # Pa s, of water at 298 K


def frames_of(shared_data: Callable[[str], Path], *kinds: str, unseen: bool = True) -> list[Atoms]:
    """Labelled frames of the kinds whose names begin like that."""
    frames = ase.io.read(shared_data("water_mbpol.xyz.gz"), ":")
    return [
        frame
        for frame in frames
        if frame.info["config_type"].startswith(kinds)
        and (not unseen or frame.info["split"] != "train")
    ]


def calculator(dtype: str = "float32", compile: bool = True) -> PhiCalculator:
    """Return the model's calculator."""
    return PhiCalculator(MODEL, dtype=dtype, compile=compile)


def virial_within_molecules(forces: np.ndarray, positions: np.ndarray) -> float:
    """``Σ f·(r − R)`` over whole molecules of three atoms, R their oxygen, in eV."""
    inner = positions.reshape(-1, 3, 3) - positions.reshape(-1, 3, 3)[:, :1]
    return float((forces.reshape(-1, 3, 3) * inner).sum())


def molecular_pressure(atoms: Atoms) -> float:
    """Pressure in bar of the forces between molecules, without the kinetic part."""
    virial = -np.trace(atoms.get_stress(voigt=False)) * atoms.get_volume()
    virial -= virial_within_molecules(atoms.get_forces(), atoms.positions)
    return float(virial / (3 * atoms.get_volume()) / units.bar)


def test_water_properties_errors(shared_data, record: Callable[[str, float], None]) -> None:
    """By kind of frame: energies per atom and forces, root mean square."""
    calc, rows = calculator("float64", compile=False), {}
    kinds = ("liquid", "ice", "slab", "compressed", "cluster", "dimer", "monomer")
    for frame in frames_of(shared_data, *kinds):
        kind = next(kind for kind in kinds if frame.info["config_type"].startswith(kind))
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.calc = calc
        energy = (atoms.get_potential_energy() - frame.get_potential_energy()) / len(atoms)
        forces = atoms.get_forces() - frame.get_forces()
        rows.setdefault(kind, []).append((energy, forces))
    print(f"\n{MODEL}, unseen frames: number, energy (meV/atom), forces (meV/Å)")
    for kind, found in rows.items():
        energy = 1e3 * float(np.sqrt(np.mean([e**2 for e, _ in found])))
        forces = 1e3 * float(np.sqrt(np.mean(np.concatenate([f for _, f in found]) ** 2)))
        print(f"  {kind:<12} {len(found):4d} {energy:8.2f} {forces:8.1f}")
        record(f"{MODEL} {kind} energy (meV/atom)", energy)
        record(f"{MODEL} {kind} forces (meV/Å)", forces)
        assert np.isfinite(forces)


def test_water_properties_pressure(shared_data, record: Callable[[str, float], None]) -> None:
    """Molecular pressure against MB-pol's, by density."""
    calc, rows = calculator("float64", compile=False), {}
    for frame in frames_of(shared_data, "liquid"):
        labels = SinglePointCalculator(
            frame, forces=frame.get_forces(), stress=frame.get_stress(voigt=False)
        )
        frame.calc = labels
        expected = molecular_pressure(frame)
        frame.calc = calc
        found = molecular_pressure(frame)
        rows.setdefault(round(float(frame.info["density"]), 2), []).append(found - expected)
    print(f"\n{MODEL}, molecular pressure minus MB-pol's (bar): density, frames, mean, largest")
    for density, errors in sorted(rows.items()):
        print(
            f"  {density:.2f} {len(errors):3d} {np.mean(errors):+8.0f} {np.abs(errors).max():8.0f}"
        )
    every = np.concatenate(list(rows.values()))
    print(f"  all  {len(every):3d} {every.mean():+8.0f}, rms {np.sqrt((every**2).mean()):.0f}")
    worst = max(abs(float(np.mean(errors))) for errors in rows.values())
    record(f"{MODEL} molecular pressure, largest mean error of a density (bar)", worst)
    assert np.isfinite(every).all()


def run(atoms: Atoms, name: str, length: float, temperature: float, **settings) -> Path:
    """Run dynamics of so many ps unless that was done, and return the folder."""
    settings = {"timestep": 1.0, "log_interval": 20, "trajectory_interval": 100, **settings}
    steps = round(1000 * length / settings["timestep"])
    config = MDConfig(temperature=temperature, steps=steps, seed=7, **settings)
    folder = FOLDER / f"{Path(MODEL).name}_{name}"
    run_md(atoms, config, folder, restart=(folder / "checkpoint.safetensors").exists())
    return folder


def liquid(temperature: float, density: float, heavy: bool = True) -> Atoms:
    """64 molecules, relaxed and warm."""
    atoms = water_box(64, density=density)
    atoms.calc = calculator()
    if heavy:
        make_hydrogen_heavy(atoms)
    relax(atoms, fmax=0.3, steps=60)
    initialise_velocities(atoms, temperature, np.random.default_rng(3))
    return atoms


@pytest.mark.parametrize("temperature", list(DENSITIES))
def test_water_properties_density(temperature: float, record: Callable[[str, float], None]) -> None:
    expected, part = DENSITIES[temperature]
    atoms = liquid(temperature, expected)
    start = {"thermostat_time": 50.0, "log_pressure": True}
    run(atoms, f"melt_{temperature:g}", 5.0, temperature, **start)
    atoms.calc = calculator()
    folder = run(
        atoms, f"npt_{temperature:g}", part * LENGTH, temperature, ensemble="npt", pressure=1.0,
        thermostat_time=100.0, barostat_time=500.0, velocities="keep",
    )  # fmt: skip
    densities = read_log(folder / "log.csv")["density_g_cm3"]
    found = block_average(densities[int(DISCARDED * len(densities)) :])
    print(
        f"\n{MODEL}, {temperature:g} K, 1 bar, {part * LENGTH:g} ps: {found.value:.4f} ± "
        f"{found.error:.4f} g/cm³{'' if found.converged else ' (too short for the error)'}, "
        f"experiment {expected:.3f}"
    )
    record(f"{MODEL} density at {temperature:g} K (g/cm³)", found.value)
    assert np.isfinite(found.value)


def peaks(trajectory: Path) -> tuple[float, float, float, float]:
    """Place and height of the first O–O maximum, and of the minimum behind it."""
    frames = ase.io.read(trajectory, ":")
    found = pair_distribution(frames[int(DISCARDED * len(frames)) :], ("O", "O"))
    top = int(found.values.argmax())
    behind = slice(top, int(np.searchsorted(found.radii, 4.0)))
    low = top + int(found.values[behind].argmin())
    return found.radii[top], found.values[top], found.radii[low], found.values[low]


def test_water_properties_liquid(record: Callable[[str, float], None]) -> None:
    """Structure and diffusion at 298 K and 0.997 g/cm³, corrected for the size of the box."""
    atoms = liquid(298.0, 0.997, heavy=False)
    run(atoms, "equilibrate", 5.0, 298.0, timestep=0.5, thermostat_time=50.0)
    atoms.calc = calculator()
    folder = run(
        atoms, "nvt", 0.5 * LENGTH, 298.0, timestep=0.5, thermostat="bussi",
        thermostat_time=500.0, velocities="keep",
    )  # fmt: skip
    trajectory = next(folder.glob("trajectory.*"))
    top, height, low, depth = peaks(trajectory)
    print(f"\n{MODEL}, 298 K: g(OO) maximum {height:.2f} at {top:.2f} Å, minimum {depth:.2f} at "
          f"{low:.2f} Å (experiment 2.57 at 2.80 Å, 0.84 at 3.45 Å)")  # fmt: skip
    found = next(d for d in diffusion(read_trajectory(ase.io.iread(trajectory))) if d.symbol == "O")
    edge = float(atoms.cell.lengths()[0])
    kt = units.kB * 298.0 / units.J
    added = 1e9 * 2.837297 * kt / (6 * np.pi * VISCOSITY * edge * 1e-10)
    value = found.coefficient.value + added
    print(f"diffusion {found.coefficient.value:.2f} ± {found.coefficient.error:.2f}, for an "
          f"infinite box {value:.2f} (experiment 2.30; 1e-9 m²/s)")  # fmt: skip
    record(f"{MODEL} height of g(OO)", float(height))
    record(f"{MODEL} diffusion (1e-9 m²/s)", value)
    assert found.diffusive


def test_water_properties_ice(shared_data, record: Callable[[str, float], None]) -> None:
    """Ice Ih at 250 K and 1 bar: its lattice stays, its density."""
    ice = frames_of(shared_data, "ice_1h", unseen=False)[0]
    atoms = Atoms(ice.numbers, ice.positions, cell=ice.cell, pbc=True)
    make_hydrogen_heavy(atoms)
    atoms.calc = calculator()
    initialise_velocities(atoms, 250.0, np.random.default_rng(3))
    folder = run(
        atoms, "ice", 0.2 * LENGTH, 250.0, ensemble="npt", pressure=1.0, thermostat_time=100.0,
        barostat_time=500.0,
    )  # fmt: skip
    densities = read_log(folder / "log.csv")["density_g_cm3"]
    found = block_average(densities[int(DISCARDED * len(densities)) :])
    trajectory = read_trajectory(ase.io.iread(next(folder.glob("trajectory.*"))))
    oxygen = next(d for d in diffusion(trajectory) if d.symbol == "O")
    print(f"\n{MODEL}, ice Ih, 250 K: {found.value:.4f} ± {found.error:.4f} g/cm³ (experiment "
          f"0.920); mean squared displacement of O {oxygen.displacement[-1]:.2f} Å²")  # fmt: skip
    record(f"{MODEL} density of ice Ih (g/cm³)", found.value)
    record(f"{MODEL} displacement in ice (Å²)", float(oxygen.displacement[-1]))
    assert oxygen.displacement[-1] < 1.0


def test_water_properties_slab(shared_data, record: Callable[[str, float], None]) -> None:
    """A slab in vacuum at 300 K: no molecule breaks, none leaves, its middle is a liquid."""
    slab = frames_of(shared_data, "slab", unseen=False)[0]
    atoms = Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=True)
    atoms.calc = calculator()
    make_hydrogen_heavy(atoms)
    initialise_velocities(atoms, 300.0, np.random.default_rng(3))
    folder = run(atoms, "slab", 0.5 * LENGTH, 300.0, thermostat_time=100.0)
    frames = ase.io.read(next(folder.glob("trajectory.*")), ":")
    bonds = np.array([
        [frame.get_distances(i, [i + 1, i + 2], mic=True) for i in range(0, len(atoms), 3)]
        for frame in frames
    ])  # fmt: skip
    middle = frames[-1].positions[::3, 2]
    height = float(np.ptp(middle - middle.mean()))
    print(f"\n{MODEL}, slab, {0.5 * LENGTH:g} ps: longest O–H {bonds.max():.3f} Å, oxygens within "
          f"{height:.1f} Å at the end")  # fmt: skip
    record(f"{MODEL} longest O–H in a slab (Å)", float(bonds.max()))
    assert bonds.max() < 1.4
