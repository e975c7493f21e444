"""Runs of every ensemble, killed (-9) at random moments and continued: `-k restart_kills`.

For each ensemble a run of our calculator (tiny, random weights) is made once in one piece. Then it
is started again and killed, three times, each time continued from its folder, and finished. End
state, trajectory and log must be those of the run in one piece, byte for byte (but for the column
of seconds).
"""

from __future__ import annotations

import multiprocessing
import random
import time
import warnings
from pathlib import Path

import ase.io

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.md import MDConfig, run_md
from phicalc.md.restart import Checkpoint
from phicalc.potential import build_potential
from phicalc.structures import water_box

from ..tiny import flat_config

NPT = {"ensemble": "npt", "barostat_time": 200.0, "pressure": 1000.0}
ENSEMBLES = {
    "nve": {"ensemble": "nve"},
    "langevin": {"thermostat": "langevin"},
    "langevin, ramp": {"thermostat": "langevin", "temperature_end": 400.0},
    "bussi": {"thermostat": "bussi"},
    "nose-hoover": {"thermostat": "nose-hoover"},
    "berendsen": {"thermostat": "berendsen"},
    "npt": NPT,
    "npt, ramps": {**NPT, "temperature_end": 400.0, "pressure_end": 1.0},
    "npt, full cell": {**NPT, "cell_motion": "full"},
    "npt, axes": {**NPT, "cell_motion": "axes", "axes": "ac"},
    "npt, berendsen": {**NPT, "thermostat": "berendsen"},
    "npt, berendsen, axes": {
        **NPT, "thermostat": "berendsen", "cell_motion": "axes", "axes": "b",
    },
}  # fmt: skip
KILLS = 3  # of each


def start(config: MDConfig, folder: Path) -> None:
    """Start or continue the run."""
    warnings.simplefilter("ignore")  # random weights lead atoms together, and are warned of
    model = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1
    )
    atoms = water_box(2, density=0.2)
    atoms.calc = PhiCalculator(build_potential(model, seed=1))
    run_md(atoms, config, folder, restart=True, progress=False)


def in_a_child(config: MDConfig, folder: Path, kill_after: float | None) -> bool:
    """Run in another process; whether it had to be killed."""
    child = multiprocessing.get_context("fork").Process(target=start, args=(config, folder))
    child.start()
    child.join(kill_after)
    if child.is_alive():
        child.kill()
        child.join()
        return True
    assert child.exitcode == 0
    return False


def contents(folder: Path) -> dict[str, object]:
    """Everything that must agree: the log without its seconds, frames, and the state's parts."""
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    seconds = rows[0].index("wall_time_s")
    return {
        "log": [row[:seconds] + row[seconds + 1 :] for row in rows],
        "trajectory": (folder / "trajectory.extxyz").read_bytes(),
        "final": (folder / "final.extxyz").read_bytes(),
        "state": state_bits(folder),
    }


def state_bits(folder: Path) -> dict[str, bytes]:
    """Bits of positions, momenta, cell, thermostat and barostat at the end."""
    saved = Checkpoint.load(folder / "checkpoint.safetensors")
    bits = {name: value.tobytes() for name, value in (saved.motion | saved.integrator).items()}
    return {**bits, "random": repr(saved.random_state).encode()}


def test_restart_kills(tmp_path):
    rng, kills = random.Random(20260101), 0
    for name, settings in ENSEMBLES.items():
        config = MDConfig(
            timestep=0.1, steps=120, checkpoint_interval=9, log_interval=4, trajectory_interval=5,
            max_force=1e6, thermostat_time=20.0, **settings,
        )  # fmt: skip
        whole, parts = tmp_path / name / "whole", tmp_path / name / "parts"
        begin = time.perf_counter()
        in_a_child(config, whole, None)
        length = time.perf_counter() - begin
        killed = 0
        for _ in range(KILLS):
            killed += in_a_child(config, parts, rng.uniform(0.0, 0.5 * length))
        in_a_child(config, parts, None)
        steps = [f.info["step"] for f in ase.io.iread(parts / "trajectory.extxyz")]
        assert steps == [*range(0, 121, 5)]
        assert contents(parts) == contents(whole), name
        print(f"{name:<22} {killed} kills: log, {len(steps)} frames and end state as in one piece")
        kills += killed
    print(f"{kills} kills in all, no frame lost or doubled")
    assert kills >= 20
