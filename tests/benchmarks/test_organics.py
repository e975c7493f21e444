"""The general model `organics` beside GFN2-xTB: errors by class, minima, cost (`-k organics`).

- `-k organics_errors`: held-out frames by class of molecule and by total charge; and forces and
  dipoles by class against DFT (ωB97M-D3BJ, a part of SPICE in ``$PHICALC_DATA``) of the model,
  GFN2-xTB, SO3LR where it is installed, and whatever else PHICALC_BENCH_BESIDE names: folders of
  models, separated by commas. What they find is kept in PHICALC_BENCH_FOLDER.
- `-k organics_relax`: 20 drug-like molecules and 10 clusters of ions and water, held out, relaxed
  from the same start by the model and by GFN2-xTB, and by the model from the minimum of GFN2-xTB.
- `-k organics_separation`: charge and energy of Na⁺ as it leaves chloride or water.
- `-k organics_cost`: energies, forces and charges of droplets of water and of alkanes, one thread.

Minima of GFN2-xTB (the extra ``label``) are kept in PHICALC_BENCH_FOLDER (``runs/organics`` by
default). ``PHICALC_MODEL`` names another model folder.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.calculators.calculator import CalculationFailed, Calculator

from phicalc import PhiCalculator
from phicalc.labelling import CalculatorSpec, label
from phicalc.relax import relax
from phicalc.structures import read_structures, water_box, write_structures
from phicalc.training import evaluate_model

MODEL = os.environ.get("PHICALC_MODEL", "organics")
FOLDER = Path(os.environ.get("PHICALC_BENCH_FOLDER", "runs/organics"))
REPOSITORY = Path(__file__).resolve().parents[2]
TEST_FILE = REPOSITORY / "tests/data/xtb_organics_test.xyz.gz"
FMAX, STEPS = 0.02, 1000
WATER = re.compile(r"\+\d+\*O$")
WATERS, CARBONS = (7, 17, 50, 133, 333, 667), (6, 16, 33, 66, 166, 666)
#: Sizes beyond which xTB is left out (it takes minutes).
XTB_ATOMS = int(os.environ.get("PHICALC_BENCH_XTB_ATOMS", "410"))


@cache
def held_out() -> list[Atoms]:
    """Frames kept out of training (unpacked first: ASE's reader steps back and forth)."""
    return unpacked(TEST_FILE)


def unpacked(path: Path) -> list[Atoms]:
    """Frames of a packed file, with labels."""
    text = gzip.decompress(path.read_bytes()).decode()
    return list(ase.io.read(io.StringIO(text), ":", format="extxyz"))


def xtb(atoms: Atoms) -> Calculator:
    """GFN2-xTB for a structure."""
    return CalculatorSpec("gfn2-xtb").make(atoms)


def table(title: str, groups: dict[str, list[Atoms]]) -> dict[str, dict[str, float]]:
    """Print errors by group."""
    print(f"\n{title:<17} frames atoms | energy MAE, RMSE meV/atom | forces MAE, RMSE meV/Å | "
          "charges me | dipole me·Å (RMSE)")  # fmt: skip
    found = {}
    for name, frames in groups.items():
        m = evaluate_model(MODEL, frames, device="cpu", report=lambda _: None)["metrics"]
        size = np.mean([len(atoms) for atoms in frames])
        print(f"{name:<17} {len(frames):6d} {size:5.1f} | {m['energy_mae']:6.2f} "
              f"{m['energy_rmse']:6.2f} | {m['forces_mae']:6.1f} {m['forces_rmse']:6.1f} | "
              f"{m['charges_rmse']:5.1f} | {m['dipole_rmse']:6.1f}", flush=True)  # fmt: skip
        found[name] = m
    return found


def test_organics_errors(record: Callable[[str, float], None]) -> None:
    frames = held_out()
    classes, charges = defaultdict(list), defaultdict(list)
    for atoms in frames:
        classes[atoms.info["config_type"]].append(atoms)
        charges[f"charge {atoms.info['charge']:+.0f}"].append(atoms)
    found = table("class", {"all": frames, **dict(sorted(classes.items()))})
    table("total charge", dict(sorted(charges.items())))
    for name, metrics in found.items():
        record(f"organics {name} forces (meV/Å)", metrics["forces_rmse"])
        record(f"organics {name} energy (meV/atom)", metrics["energy_rmse"])
    assert found["all"]["forces_rmse"] < 250


def contestants() -> dict[str, CalculatorSpec]:
    """Everything that is compared with DFT."""
    models = [MODEL, *filter(None, os.environ.get("PHICALC_BENCH_BESIDE", "").split(","))]
    found = {
        name: CalculatorSpec("phicalc:PhiCalculator", {"model": name}, charge_argument="info")
        for name in models
    }
    found["gfn2-xtb"] = CalculatorSpec("gfn2-xtb")
    if find_spec("so3krates_torch"):
        sys.path.append(str(REPOSITORY / "tools/organics"))
        found["so3lr"] = CalculatorSpec("so3lr:SO3LR", {}, "info", "coordinates")
    return found


def labelled_by(spec: CalculatorSpec, name: str, frames: list[Atoms]) -> dict[int, Atoms]:
    """Return the frames with labels of a calculator, by number; some may have failed."""
    path = FOLDER / f"dft_{Path(name).name}.xyz"
    result = label(frames, spec, path, max_force=1e6)
    failed = {failure["structure"] for failure in result.failures}
    numbers = [number for number in range(len(frames)) if number not in failed]
    return dict(zip(numbers, read_structures(path), strict=True))


def test_organics_errors_dft(
    record: Callable[[str, float], None], shared_data: Callable[[str], Path]
) -> None:
    known = {"H", "C", "N", "O", "F", "P", "S", "Cl"}
    frames = unpacked(shared_data("spice_bec_test.xyz.gz"))
    frames = [atoms for atoms in frames if set(atoms.symbols) <= known]
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = {name: labelled_by(spec, name, frames) for name, spec in contestants().items()}
    common = set.intersection(*(set(labels) for labels in found.values()))
    print("\nagainst DFT, frames that all can do: forces MAE, RMSE meV/Å | dipole RMSE me·Å")
    kinds = ["all", *sorted({str(atoms.info["config_type"]) for atoms in frames})]
    for name, labels in found.items():
        for kind in kinds:
            chosen = [k for k in sorted(common) if kind in ("all", frames[k].info["config_type"])]
            forces, dipole = (
                1e3 * np.concatenate([get(labels[k]).ravel() - get(frames[k]).ravel()
                                      for k in chosen])
                for get in (Atoms.get_forces, Atoms.get_dipole_moment)
            )  # fmt: skip
            mae, rmse = np.abs(forces).mean(), np.sqrt((forces**2).mean())
            print(f"{Path(name).name:<12} {kind:<20} {len(chosen):4d} | {mae:6.1f} {rmse:6.1f} | "
                  f"{np.sqrt((dipole**2).mean()):6.1f}", flush=True)  # fmt: skip
            record(f"{name} {kind} forces against DFT (meV/Å)", float(rmse))
            assert (name, kind) != (MODEL, "all") or rmse < 300


def starts() -> tuple[list[Atoms], list[Atoms]]:
    """One geometry of 20 drug-like molecules and of 10 clusters of ions with water."""
    frames = held_out()
    rng = np.random.default_rng(0)
    first: dict[str, Atoms] = {}
    for index in rng.permutation(len(frames)):
        first.setdefault(frames[index].info["molecule"], frames[index])
    drugs = [a for a in first.values() if a.info["config_type"] == "drug"][:20]
    ions = [
        a
        for name, a in first.items()
        if a.info["config_type"] == "ion_cluster" and WATER.search(name)
    ][:10]
    return drugs, ions


def minima(starts: list[Atoms], path: Path) -> list[Atoms]:
    """Minima of GFN2-xTB, from a file or computed; ``info["steps"]`` is -1 where it failed."""
    if path.is_file():
        return read_structures(path)
    found = []
    for start in starts:
        atoms = Atoms(start.numbers, start.positions, info=dict(start.info))
        result = relax(atoms, xtb(atoms), fmax=FMAX, steps=STEPS)
        atoms.info["steps"] = result.steps if result.converged else -1
        found.append(atoms)
        print(
            f"xTB {atoms.info['molecule']}: {result.steps} steps, {result.max_force:.3f} eV/Å",
            flush=True,
        )
    for atoms in found:
        atoms.calc = None
    write_structures(path, found)
    return found


def xtb_energy(atoms: Atoms, start: Atoms) -> float:
    """Energy by GFN2-xTB in eV."""
    copy = Atoms(atoms.numbers, atoms.positions, info={"charge": start.info["charge"]})
    copy.calc = xtb(copy)
    return float(copy.get_potential_energy())


def deviation(first: Atoms, second: Atoms, heavy: bool) -> float:
    """Root mean square distance of atoms after superposition, in Å."""
    chosen = first.numbers > 1 if heavy else np.full(len(first), True)
    one, other = (Atoms(a.numbers[chosen], a.positions[chosen]) for a in (first, second))
    if len(one) > 1:
        minimize_rotation_and_translation(one, other)
    else:
        other.positions[:] = one.positions
    return float(np.sqrt(((one.positions - other.positions) ** 2).sum(axis=1).mean()))


@pytest.mark.parametrize("kind", ["drugs", "ions"])
def test_organics_relax(kind: str, record: Callable[[str, float], None]) -> None:
    chosen = starts()[kind == "ions"]
    references = minima(chosen, FOLDER / f"xtb_minima_{kind}.xyz")
    calculator = PhiCalculator(MODEL, device="cpu", dtype="float64")
    converged, rows = 0, []
    print("\nmolecule, charge, atoms | steps xTB, model | RMSD to the xTB minimum of all and of "
          "heavy atoms (Å): same start; from the xTB minimum | energies by xTB of both above it "
          "(meV)")  # fmt: skip
    for start, reference in zip(chosen, references, strict=True):
        ends = []
        for origin in (start, reference):
            atoms = Atoms(origin.numbers, origin.positions, info={"charge": start.info["charge"]})
            result = relax(atoms, calculator, fmax=FMAX, steps=STEPS)
            ends.append((atoms, result))
        converged += ends[0][1].converged
        row = [deviation(reference, atoms, heavy) for atoms, _ in ends for heavy in (False, True)]
        energies = [
            xtb_energy(atoms, start) for atoms in (reference, *(atoms for atoms, _ in ends))
        ]
        row += [1e3 * (energy - energies[0]) for energy in energies[1:]]
        rows.append(row)
        steps = f"{reference.info['steps']}, {ends[0][1].steps}"
        steps += "" if ends[0][1].converged else " (not converged)"
        name = f"{start.info['molecule'][:45]} {start.info['charge']:+.0f} {len(start)}"
        shown = "{:.3f} {:.3f}; {:.3f} {:.3f} | {:5.0f} {:5.0f}".format(*row)
        print(f"{name:<53} | {steps:>10} | {shown}", flush=True)
    median, mean = (np.round(f(rows, axis=0), 3) for f in (np.median, np.mean))
    print(f"{converged} of {len(chosen)} converged; median {median}, mean {mean}")
    for column, name in enumerate(("all", "heavy", "all from xTB", "heavy from xTB")):
        record(f"organics {kind} RMSD median {name} (Å)", float(median[column]))
    assert converged == len(chosen)


def alkane(n_carbons: int) -> Atoms:
    """Stretched chain of carbons, all anti."""
    backbone = np.array([[1.26 * i, 0.43 * (-1) ** i, 0] for i in range(n_carbons)])
    side = np.array([[0, 0.63 * (-1) ** i, 0] for i in range(n_carbons)])
    up, down = (backbone + side + [0, 0, z] for z in (0.89, -0.89))
    ends = np.array([[-0.9, -0.62, 0], [0.9, 0.62 * (-1) ** n_carbons, 0]]) + backbone[[0, -1]]
    symbols = ["C"] * n_carbons + ["H"] * (2 * n_carbons + 2)
    return Atoms(symbols, np.concatenate([backbone, up, down, ends]))


def droplet(n_molecules: int) -> Atoms:
    """Water without a cell."""
    atoms = water_box(n_molecules)
    return Atoms(atoms.numbers, atoms.positions)


def milliseconds(atoms: Atoms, rounds: int) -> float:
    """Median time of a step, all atoms moved before each; two come before it, unless it is one."""
    rng, times = np.random.default_rng(0), []
    start_up = 2 if rounds > 1 else 0
    for _ in range(rounds + start_up):
        atoms.positions += rng.normal(scale=0.003, size=(len(atoms), 3))
        start = time.perf_counter()
        atoms.get_forces()
        atoms.get_charges()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[start_up:])


def test_organics_cost(record: Callable[[str, float], None]) -> None:
    calculator = PhiCalculator(MODEL, device="cpu", compile=True)
    print("\nstructure, atoms | model ms | GFN2-xTB ms | ratio")
    systems = [("water", droplet(n)) for n in WATERS] + [("alkane", alkane(n)) for n in CARBONS]
    for name, atoms in systems:
        atoms.calc = calculator
        ours, other = milliseconds(atoms, 20), float("nan")
        if len(atoms) <= XTB_ATOMS:
            atoms.calc = xtb(Atoms(atoms, info={"charge": 0.0}))
            other = milliseconds(atoms, 3 if len(atoms) < 300 else 1)  # that takes minutes
        print(
            f"{name:<8} {len(atoms):5d} | {ours:8.2f} | {other:9.1f} | {other / ours:7.1f}",
            flush=True,
        )
        record(f"organics {name} {len(atoms)} atoms (ms)", ours)


def test_organics_separation() -> None:
    calculator = PhiCalculator(MODEL, device="cpu")
    pairs = [("NaCl", Atoms("NaCl", np.zeros((2, 3)))), ("Na+ and water", Atoms("NaOH2"))]
    pairs[1][1].positions[1:] = [[0, 0, 0], [0.757, 0, 0.587], [-0.757, 0, 0.587]]
    pairs[1][1].info["charge"] = 1.0
    print("\npair | Na–X Å | charge of Na: model, GFN2-xTB e | energy above the first: both, eV")
    for name, atoms in pairs:
        zero = None
        for distance in (2.4, 3.0, 4.0, 6.0, 10.0, 20.0):
            atoms.positions[0] = atoms.positions[1] - [0, 0, distance]
            found = []
            for calc in (calculator, xtb(Atoms(atoms, info={"charge": 0.0, **atoms.info}))):
                atoms.calc = calc
                try:
                    found += [atoms.get_charges()[0], atoms.get_potential_energy()]
                except CalculationFailed:  # the iterations of xTB, where an electron may jump
                    found += [float("nan"), float("nan")]
            zero = zero or (found[1], found[3])
            print(f"{name:<14} | {distance:5.1f} | {found[0]:6.3f} {found[2]:6.3f} | "
                  f"{found[1] - zero[0]:7.3f} {found[3] - zero[1]:7.3f}", flush=True)  # fmt: skip
