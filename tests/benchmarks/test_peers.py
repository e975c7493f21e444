"""Steps of dynamics beside other potentials: `make bench ARGS="-k peers"`.

Energy, forces, stress and charges through ASE, one thread, milliseconds of the processor (median of
the steps) and microseconds per atom; every calculator in a process of its own, all on the same
structures, one after another. The others as fast as their authors make them: MACE in the compiled
C++ of Symmetrix-XL, NequIP compiled ahead of time (AOTInductor), NEP in C++ (calorine); and as they
come (MACE, NequIP, CHGNet) for the smaller structures. They need environments of their own
(`tools/peers.sh`, found in $PHICALC_PEERS or .peers); what is not there is left out by name. Rock
salt and the molecule are timed with the networks of our models and random weights, as all others
everywhere.

PHICALC_BENCH_MODELS names our models, separated by commas; PHICALC_BENCH_CACHE is a folder that
keeps what is compiled from run to run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk

from phicalc.structures import water_box

HERE = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("PHICALC_PEERS", HERE.parents[1] / ".peers"))
MODELS = os.environ.get("PHICALC_BENCH_MODELS", "water-small,water-pbe0").split(",")
#: Calculators (see `step_times.py`) by the environment that has them.
OTHERS = {
    "calorine": ("nep:nep4", "nep:qnep"),
    "mace": ("symmetrix:s", "symmetrix:a", "mace:a"),
    "nequip": ("nequip-compiled:l1", "nequip:l2"),
    "chgnet": ("chgnet:",),
}
#: Those that are not compiled take seconds for large structures, and are left out there.
AS_THEY_COME, SMALL = ("mace:a", "nequip:l2", "chgnet:"), 200
#: Kept memory for everybody: large tensors would be mapped anew at every step.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def rock_salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(4)
    atoms.rattle(0.05, seed=0)
    return atoms


def molecule(shared_data: Callable[[str], Path]) -> Atoms:
    frames = ase.io.read(shared_data("spice_dipeptides_mbis_val.xyz.gz"), ":")
    return next(atoms for atoms in frames if len(atoms) == 51)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, shared_data) -> dict[str, Path]:
    structures = {f"water {3 * n}": water_box(n) for n in (64, 216, 512, 1728)}
    structures |= {"NaCl 512": rock_salt(), "molecule 51": molecule(shared_data)}
    folder = tmp_path_factory.mktemp("structures")
    paths = {}
    for name, atoms in structures.items():
        plain = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        paths[name] = folder / f"{name.replace(' ', '_')}.extxyz"
        ase.io.write(paths[name], plain)
    return paths


def timed(python: str, name: str, dtype: str, steps: int, path: Path, cache: Path) -> dict | None:
    """Run `step_times.py` in another process; None if it cannot, with its reason printed."""
    command = [python, str(HERE / "step_times.py"), name, dtype, str(steps), str(path)]
    environment = {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1", "PHICALC_CACHE": str(cache),
                   "PYTHONWARNINGS": "ignore", "JAXTYPING_DISABLE": "1"}  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    print(f"    {name}, {dtype}, {path.stem}: {done.stderr.strip().splitlines()[-1:]}")
    return None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peers(dtype: str, files, record, tmp_path_factory) -> None:
    cache = Path(
        os.environ.get("PHICALC_BENCH_CACHE", tmp_path_factory.getbasetemp() / "peers_cache")
    )
    here = {name for name in OTHERS if (PEERS / name).is_dir()}
    print(f"\n{dtype}; not here: {sorted(OTHERS.keys() - here)}")
    for system, path in files.items():
        n_atoms = len(ase.io.read(path))
        python = {name: PEERS / place / "bin/python" for place in here for name in OTHERS[place]}
        python = {n: p for n, p in python.items() if n_atoms < SMALL or n not in AS_THEY_COME}
        ours = [f"{'model' if 'water' in system else 'random'}:{model}" for model in MODELS]
        results = {name: timed(sys.executable, name, dtype, 30, path, cache) for name in ours}
        for name in python:
            steps = 3 if name in AS_THEY_COME else 10
            results[name] = timed(str(python[name]), name, dtype, steps, path, cache)
        found = {name: result for name, result in results.items() if result}
        for name, result in found.items():
            ms = result["ms"]
            ratios = [f"{ms / found[our]['ms']:6.2f}" for our in ours if our in found]
            line = f"{system:<12} {name:<20} {ms:9.2f} ms {1e3 * ms / n_atoms:8.1f} µs/atom"
            print(f"  {line} {result['peak_mb']:6.0f} MB  × ours {' '.join(ratios)}", flush=True)
            record(f"peers {dtype} {system} {name} (ms)", ms)
        assert all(name in found for name in ours)
