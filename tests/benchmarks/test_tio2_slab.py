"""Water on rutile with vacuum above, periodic in two directions: `make bench ARGS="-k tio2_slab"`.

5 ps at 300 K with the shipped model `tio2-water` (half an hour at most) must leave a slab with
water on it: it keeps its thickness, every hydrogen has an oxygen in every frame, titanium keeps its
neighbours. Log, trajectory and picture stay in ``runs/``; PHICALC_MODEL names another model folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.md.velocitydistribution import thermalize_momenta
from ase.neighborlist import neighbor_list

from phicalc import PhiCalculator
from phicalc.md import MDConfig, make_report, read_log, run_md

from .water_start import RUNS


def slab(path: os.PathLike[str]) -> Atoms:
    """Return the first structure with water, vacuum and rutile, open along z."""
    frames = ase.io.iread(path, ":")
    found = next(atoms for atoms in frames if atoms.info["config_type"] == "r5-water-v-rutile")
    atoms = Atoms(found.numbers, found.positions, cell=found.cell, pbc=True)
    height = np.sort(atoms.get_scaled_positions()[:, 2])
    gaps = np.diff(np.append(height, height[0] + 1))
    widest = int(gaps.argmax())
    atoms.translate([0, 0, -(height[widest] + 0.5 * gaps[widest]) * atoms.cell[2, 2]])
    atoms.wrap()  # the vacuum lies at the faces of the cell now
    atoms.pbc = (True, True, False)
    return atoms


def shape(atoms: Atoms) -> dict[str, float]:
    """Numbers that tell whether water and oxide are still there."""
    first, second = neighbor_list("ij", atoms, {("O", "H"): 1.35, ("Ti", "O"): 2.6})
    centre, other = atoms.numbers[first], atoms.numbers[second]
    partners = np.bincount(first[(centre == 1) & (other == 8)], minlength=len(atoms))
    hydrogens = np.bincount(first[(centre == 8) & (other == 1)], minlength=len(atoms))
    oxygens = np.bincount(first[(centre == 22) & (other == 8)], minlength=len(atoms))
    return {
        "H without O": float((partners[atoms.numbers == 1] == 0).sum()),
        "water molecules": float((hydrogens[atoms.numbers == 8] == 2).sum()),
        "hydroxyl groups": float((hydrogens[atoms.numbers == 8] == 1).sum()),
        "O around Ti": float(oxygens[atoms.numbers == 22].mean()),
        "thickness (Å)": float(np.ptp(atoms.positions[:, 2])),
    }


def test_tio2_slab(record: Callable[[str, float], None], shared_data) -> None:
    atoms = slab(shared_data("tio2_water_optb88_subset.xyz.gz"))
    model = os.environ.get("PHICALC_MODEL", "tio2-water")
    atoms.calc = PhiCalculator(model, device="cpu", compile=True)
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(1))
    config = MDConfig(
        temperature=300.0, timestep=0.5, steps=10_000, thermostat_time=200.0, seed=2,
        log_interval=20, trajectory_interval=100,
    )  # fmt: skip
    result = run_md(atoms, config, RUNS / "tio2_slab", overwrite=True)
    picture = make_report(RUNS / "tio2_slab")
    frames = ase.io.read(result.trajectory, ":")
    first, last = shape(frames[0]), shape(frames[-1])
    temperature = read_log(result.log)["temperature_K"][100:]
    speed = result.seconds / config.steps * 1e3
    print(f"\n{len(atoms)} atoms, pbc {atoms.pbc.tolist()}, 5 ps: {speed:.1f} ms a step, "
          f"{temperature.mean():.0f} K; picture {picture}")  # fmt: skip
    for name, value in first.items():
        print(f"  {name:<16} {value:7.2f} → {last[name]:7.2f}")
    record("step of the TiO2 slab (ms)", speed)
    assert all(shape(frame)["H without O"] == 0 for frame in frames)
    assert last["O around Ti"] == pytest.approx(first["O around Ti"], abs=0.3)
    assert last["thickness (Å)"] < first["thickness (Å)"] + 4
    assert temperature.mean() == pytest.approx(300, abs=20)
