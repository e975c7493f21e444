"""The Φ-Module behind other people's networks: `make bench ARGS="-k phi_plugin"` (an hour).

MACE and SchNet (`tools/peers.sh` makes their environments) are trained on xTB carbon chains, C10H2
and C10H3+, 800 frames, 15 epochs, alone and with a Φ-Module on their features (`phi_plugin.py`).
Prints errors on 100 validation frames, weights, and the time of a step of training.
PHICALC_BENCH_SEEDS and PHICALC_BENCH_HEADS choose seeds and modes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import ase.io
import pytest

HERE = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("PHICALC_PEERS", HERE.parents[1] / ".peers"))
EPOCHS = 15


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory, shared_data) -> Path:
    found = ase.io.read(shared_data("xtb_carbon_chain.xyz.gz"), ":")
    train, valid = ([a for a in found if a.info["split"] == role] for role in ("train", "val"))
    path = tmp_path_factory.mktemp("frames") / "chains.extxyz"
    ase.io.write(path, train[::4] + valid[::4])
    return path


@pytest.mark.parametrize("network", ["schnet", "mace"])
def test_phi_plugin(network: str, frames: Path, record: Callable[[str, float], None]) -> None:
    python = PEERS / network / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment with {network} in {PEERS}: run tools/peers.sh")
    seeds = os.environ.get("PHICALC_BENCH_SEEDS", "1,2,3").split(",")
    modes = os.environ.get("PHICALC_BENCH_HEADS", "none,random,dirichlet,solve").split(",")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    print(f"\n{network}: forces meV/Å, energy meV/atom, each of seeds {', '.join(seeds)}")
    for mode in modes:
        rows = []
        for seed in seeds:
            command = [str(python), "-W", "ignore", str(HERE / "phi_plugin.py")]
            command += [network, mode, str(frames), str(EPOCHS), seed]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            rows.append(json.loads(done.stdout.splitlines()[-1]))
        lists = {name: [row[name] for row in rows] for name in rows[0]}
        each = " ".join(f"{error:.1f}" for error in lists["forces"])
        print(
            f"  {mode:<10} {mean(lists['forces']):7.2f} ({each})  {mean(lists['energy']):6.3f}"
            f"  {rows[0]['weights']} weights, {mean(lists['ms_per_step']):.0f} ms a step",
            flush=True,
        )
        record(f"{network} {mode} forces (meV/Å)", mean(lists["forces"]))
