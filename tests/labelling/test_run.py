from __future__ import annotations

import gc
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from phicalc.labelling import CalculatorSpec, DynamicsSampler, RattleSampler, label
from phicalc.labelling import run as run_module
from phicalc.labelling.journal import Journal
from phicalc.labelling.samplers import SAMPLERS
from phicalc.locks import file_lock

SPEC = CalculatorSpec("ase.calculators.emt:EMT")
DYNAMICS = DynamicsSampler(temperatures=(300.0, 600.0), frames=4, interval=2)


@pytest.fixture
def structures():
    return [molecule("N2"), bulk("Cu", cubic=True)]


def run(structures, path, sampler=DYNAMICS, **changes):
    return label(structures, SPEC, path, sampler, progress=False, **changes)


@pytest.mark.parametrize("name", ["modes", "torsions", "pairs", "dissociation"])
def test_samplers_that_make_no_frames_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="makes no frames of Cu: it needs"):
        run([Atoms("Cu")], tmp_path / "data.extxyz", SAMPLERS[name]())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.cif", "a.json", "a.traj", "a.db", "POSCAR", "a.vasp", "a.pdb"])
def test_names_that_mean_another_format_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"extended XYZ: give .* a name ending in .xyz"):
        run([molecule("N2")], tmp_path / name, SAMPLERS["none"]())


@pytest.mark.parametrize(
    "limit", [{"max_force": -5.0}, {"max_force": 0.0}, {"timeout": -1.0}, {"workers": 0}]
)
def test_limits_that_no_frame_keeps_are_refused(limit, tmp_path):
    (name,) = limit
    with pytest.raises(ValueError, match=f"{name} must be "):
        run([molecule("N2")], tmp_path / "data.extxyz", SAMPLERS["none"](), **limit)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_killed_runs_end_like_whole_ones(structures, tmp_path, monkeypatch, moment):
    whole = run(structures, tmp_path / "whole.extxyz")
    original, calls = Journal.append, 0

    def torn(self, entry):
        nonlocal calls
        calls += 1
        if calls % 3:
            return original(self, entry)
        if moment == "within":
            with self.path.open("a") as stream:
                stream.write(json.dumps(entry)[:40])
        elif moment == "after":
            original(self, entry)
        raise Killed

    monkeypatch.setattr(Journal, "append", torn)
    kills = 0
    for _ in range(30):
        try:
            result = run(structures, tmp_path / "torn.extxyz")
        except Killed:
            kills += 1
            continue
        break
    assert kills >= 3
    assert calls <= 16 + 2 * kills  # nothing that was kept is computed again
    assert result.path.read_bytes() == whole.path.read_bytes()
    assert result.provenance.read_bytes() == whole.provenance.read_bytes()
    assert not (tmp_path / "torn.extxyz.journal").exists()


def test_finished_runs_are_not_repeated(structures, tmp_path, monkeypatch):
    result = run(structures, tmp_path / "data.extxyz")
    monkeypatch.setattr(run_module, "perform", None)
    assert run(structures, tmp_path / "data.extxyz") == result
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match="not the result of this run"):
        run(structures, tmp_path / "data.extxyz", RattleSampler(copies=1))
    run(structures, tmp_path / "data.extxyz", RattleSampler(copies=1), overwrite=True)
    assert len(ase.io.read(tmp_path / "data.extxyz", ":")) == 2


def test_other_settings_do_not_continue_a_run(structures, tmp_path, monkeypatch):
    def kill(*_):
        raise Killed

    monkeypatch.setattr(run_module, "write_result", kill)
    with pytest.raises(Killed):
        run(structures, tmp_path / "data.extxyz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"other settings \(max_force: 100.0 → 90.0\)"):
        run(structures, tmp_path / "data.extxyz", max_force=90.0)
    own = CalculatorSpec(SPEC.name, dipole_origin="centre_of_mass")
    with pytest.raises(ValueError, match="calculator.dipole_origin: None → 'centre_of_mass'"):
        label(structures, own, tmp_path / "data.extxyz", DYNAMICS)
    moved = [atoms.copy() for atoms in structures]
    moved[0].positions[0, 0] += 1e-9
    with pytest.raises(ValueError, match="structures.sha256: "):
        run(moved, tmp_path / "data.extxyz")
    monkeypatch.setattr(run_module, "perform", None)
    assert run(structures, tmp_path / "data.extxyz").n_frames == 16


def test_processes_give_the_same_file(structures, tmp_path):
    one = run(structures, tmp_path / "one.extxyz")
    two = run(structures, tmp_path / "two.extxyz", workers=2)
    assert one.path.read_bytes() == two.path.read_bytes()
    assert multiprocessing.get_start_method(allow_none=True) in (None, "fork")  # left alone


ENDLESS = """
from ase.build import bulk
from phicalc.labelling import CalculatorSpec, DynamicsSampler, label
if __name__ == "__main__":
    sampler = DynamicsSampler(frames=100000)
    spec = CalculatorSpec("ase.calculators.emt:EMT")
    label([bulk("Cu"), bulk("Ag")], spec, "data.extxyz", sampler, workers=2, progress=False)
"""


def test_processes_of_a_killed_run_end(tmp_path):
    script, journal = tmp_path / "endless.py", tmp_path / "data.extxyz.journal"
    script.write_text(ENDLESS)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (journal.exists() and len(journal.read_text().splitlines()) > 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
        # The pipe is at its end only when nobody holds it any more, the workers included.
        assert process.communicate(timeout=60)[0] == b""


DEADLY = """
import multiprocessing, os, pathlib
from ase.calculators.emt import EMT

class Deadly(EMT):
    def calculate(self, atoms, *args):
        if pathlib.Path("poison").exists() and len(atoms) == 4 and multiprocessing.parent_process():
            os._exit(1)
        super().calculate(atoms, *args)
"""


def test_a_worker_that_ends_of_itself_costs_no_finished_frame(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("deadly_for_label.py").write_text(DEADLY)
    Path("poison").touch()
    spec = CalculatorSpec("deadly_for_label:Deadly")
    structures = [molecule("N2"), molecule("CO"), bulk("Cu", cubic=True)]
    again = partial(label, structures, spec, "out.extxyz", workers=2, progress=False)
    with pytest.raises(RuntimeError, match=r"kept in .*Start the same") as told:
        again()
    kept = Path("out.extxyz.journal").read_text().splitlines()[1:]
    assert f": {len(kept)} of 3 frames" in str(told.value)
    assert not Path("out.extxyz").exists()
    Path("poison").unlink()
    assert again().n_frames == 3


def test_failures_are_recorded_and_left_out(structures, tmp_path, monkeypatch):
    original, calls = EMT.calculate, 0

    def fragile(self, atoms, *arguments):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise RuntimeError("SCF not\nconverged")
        return original(self, atoms, *arguments)

    monkeypatch.setattr(EMT, "calculate", fragile)
    result = run(structures, tmp_path / "data.extxyz")
    (failure,) = result.failures
    assert failure["error"] == "RuntimeError: SCF not converged"
    assert result.n_frames == 16 - 1 - failure["frames_lost_after"]
    assert len(ase.io.read(result.path, ":")) == result.n_frames
    document = json.loads(result.provenance.read_text())
    assert document["failures"] == result.failures
    assert document["frames"] == result.n_frames
    assert document["sampler"] == {
        "name": "md", "temperatures": [300.0, 600.0], "frames": 4, "interval": 2,
        "timestep": 0.5, "thermostat_time": 100.0, "copies": 1, "seed": 0,
    }  # fmt: skip
    monkeypatch.setattr(EMT, "calculate", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="every frame failed; the first: ZeroDivisionError"):
        run(structures, tmp_path / "none.extxyz")


def test_frames_keep_order_charge_and_origin(structures, tmp_path):
    structures[0].info["charge"] = -1
    structures[0].info["split"] = "val"
    spec = CalculatorSpec("ase.calculators.emt:EMT", charge_argument="info")
    path = tmp_path / "new" / "data.extxyz"
    label(structures, spec, path, DYNAMICS, progress=False)
    frames = ase.io.read(path, ":")
    found = [(f.info["structure"], f.info["temperature"], f.info["charge"]) for f in frames]
    assert found == [(0, 300, -1)] * 4 + [(0, 600, -1)] * 4 + [(1, 300, 0)] * 4 + [(1, 600, 0)] * 4
    assert frames[0].info["split"] == "val"
    assert not np.allclose(frames[0].positions, frames[1].positions)
    label(structures, spec, path, total_charge=2.0, overwrite=True, progress=False)
    assert [f.info["charge"] for f in ase.io.read(path, ":")] == [2, 2]


def test_what_makes_no_sense_is_refused_at_once(structures, tmp_path):
    with pytest.raises(ValueError, match="nothing to label"):
        run([], tmp_path / "data.extxyz")
    with pytest.raises(ValueError, match="workers must be a positive number, got 0"):
        run(structures, tmp_path / "data.extxyz", workers=0)
    spec = CalculatorSpec("ase.calculators.calculator:Calculator")
    with pytest.raises(ValueError, match="Calculator gives no energy and no forces"):
        label(structures, spec, tmp_path / "data.extxyz")
    spec = CalculatorSpec(SPEC.name, {"asap_cutoff": object()})
    with pytest.raises(ValueError, match="what JSON holds"):
        label(structures, spec, tmp_path / "data.extxyz")
    assert not list(tmp_path.iterdir())


FILES = '''
import time
import numpy as np
from pathlib import Path
from ase.calculators.calculator import Calculator

class Files(Calculator):
    """Writes a file, and reads it later, as programs with input and output files do."""
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms, properties, changes):
        super().calculate(atoms, properties, changes)
        path = Path(self.directory) / "in.txt"
        assert not path.exists()
        path.write_text(repr(float(atoms.positions[0, 0])))
        time.sleep(0.2)
        self.results = {"energy": float(path.read_text()), "forces": np.zeros((len(atoms), 3))}
'''


@pytest.mark.parametrize("workers", [1, 2])
def test_calculators_with_files_do_not_share_them(tmp_path, monkeypatch, workers):
    (tmp_path / "filed.py").write_text(FILES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # read TMPDIR anew
    (tmp_path / "scratch").mkdir()
    structures = [Atoms("H", [[float(x), 0, 0]]) for x in range(6)]
    spec = CalculatorSpec("filed:Files")
    path = tmp_path / "data.extxyz"
    assert not label(structures, spec, path, workers=workers, progress=False).failures
    energies = [atoms.get_potential_energy() for atoms in ase.io.read(path, ":")]
    assert energies == list(range(6))
    gc.collect()
    assert not list((tmp_path / "scratch").iterdir())
    assert not (tmp_path / "in.txt").exists()
    spec = CalculatorSpec("filed:Files", {"directory": "here"})
    with pytest.raises(ValueError, match="workers cannot share one directory"):
        label(structures, spec, tmp_path / "more.extxyz", workers=2)


def test_overwriting_computes_anew(structures, tmp_path, monkeypatch):
    path = tmp_path / "data.extxyz"
    before = run(structures, path).n_frames
    monkeypatch.setattr(EMT, "calculate", lambda *_: 1 / 0)
    assert run(structures, path).n_frames == before  # not computed again
    with pytest.raises(RuntimeError, match="every frame failed"):
        run(structures, path, overwrite=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.set_initial_magnetic_moments([1.0, 2.0]),
        lambda atoms: atoms.info.update(external_field=np.array([0.0, 0.0, 0.1])),
    ],
)
def test_whatever_a_calculator_may_read_makes_another_run(structures, tmp_path, change):
    path = tmp_path / "data.extxyz"
    run(structures, path)
    change(structures[0])
    with pytest.raises(FileExistsError, match="is not the result of this run"):
        run(structures, path)


def test_two_runs_of_one_file_are_refused(structures, tmp_path):
    path = tmp_path / "data.extxyz"
    with (
        file_lock(tmp_path / ".data.extxyz.lock", path),
        pytest.raises(RuntimeError, match="a run is going on in .*data.extxyz"),
    ):
        run(structures, path)
    run(structures, path)
    assert not (tmp_path / ".data.extxyz.lock").exists()
