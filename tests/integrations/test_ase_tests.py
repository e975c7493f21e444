"""ASE's own tests on our calculator, by way of `ase_tests_plugin`, in a process of their own.

Chosen are those that ask what every calculator must fulfil; left out, those that compare with the
numbers of EMT, want the stress of slabs (which we refuse), or finite differences to seven digits.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = (
    "calculator/test_traj.py",
    "calculator/test_fd.py",
    "calculator/socketio/test_ipi_protocol_bfgs.py",
    "test_loggingcalc.py",
    "md/test_md.py",
    "md/test_md_stepwise.py",
    "md/test_rng.py",
    "md/test_irun_force_call_order.py",
    "md/test_langevin_com.py",
    "filter/test_filter.py",
    "optimize/test_nsteps.py",
    "optimize/test_optimize_stepwise.py",
    "optimize/test_restart.py",
    "optimize/test_replay.py",
    "constraints/test_fixcom.py",
    "constraints/test_fixsubsetcom.py",
    "constraints/test_hookean_pbc.py",
    "constraints/test_fixscaled.py",
    "neb/test_shared_calculator_neb.py",
    "test_potential_energies.py",
    "vibrations/test_pickle2json.py",
    "atoms/test_h2.py",
)
#: But for the one test in test_fd.py whose tolerance is that of EMT.
CHOSEN = "not test_fd or analytical"
#: Tests that must have run, skipped ones left out.
AT_LEAST = 60


@pytest.mark.slow
def test_ase_runs_its_tests_on_our_calculator(tmp_path):
    if importlib.util.find_spec("ase.test.conftest") is None:
        pytest.skip("this ASE was installed without its tests (ase/test)")
    folder = Path(importlib.util.find_spec("ase.test").origin).parent
    (tmp_path / "pytest.ini").touch()  # ours is not theirs
    paths = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "ase_tests_plugin",
        "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:phicalc",
        "--calculators=phicalc", "-q", "--tb=short", "-k", CHOSEN,
        *(str(folder / name) for name in FILES),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= AT_LEAST, done.stdout[-2000:]
    print(passed[0])
