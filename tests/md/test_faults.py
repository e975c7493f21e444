"""Faults that happen to runs: what the user is told, and that nothing written is lost."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator

import phicalc.md.folder as folder_module
from phicalc import cli, locks
from phicalc.calculators.committee import CommitteeCalculator
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.md import MDConfig, MDError, read_log, run_md
from phicalc.md.folder import RunFolder, locked, warn_about_room
from phicalc.md.output import GrowingFile
from phicalc.structures import write_structures

from .systems import Springs, cluster, save_tiny_model, tiny_potential, waters

# Python 3.12 and later warn of what torch's threads might do in a child; these use none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

CONFIG = MDConfig(
    timestep=2.0, steps=60, log_interval=1, trajectory_interval=1, checkpoint_interval=10
)


def in_another_process(function, *arguments) -> str:
    """Call a function in a child and return the text that it puts into its queue."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=function, args=(queue, *arguments))
    child.start()
    text = queue.get(timeout=60)
    child.join()
    return text


def run_on_a_small_disk(queue, folder: Path, limit: int) -> None:
    """Run where no file may grow beyond a limit, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run_md(cluster(), CONFIG, folder)
    except BaseException as error:
        queue.put(f"{type(error).__name__}: {error}")
    else:
        queue.put("no error")


def test_full_disk_ends_the_run_with_whole_files_and_it_goes_on_later(tmp_path):
    told = in_another_process(run_on_a_small_disk, tmp_path / "run", 20_000)
    assert told.startswith("MDError: step ")
    assert "File too large" in told
    assert "saved up to step 10" in told or "saved up to step 20" in told
    frames = ase.io.read(tmp_path / "run/trajectory.extxyz", ":")  # the last one is whole
    assert [frame.info["step"] for frame in frames] == [*range(len(frames))]
    assert len(frames) > 10
    assert (tmp_path / "run/log.csv").read_bytes().endswith(b"\n")
    atoms, whole = cluster(), cluster()
    run_md(atoms, CONFIG, tmp_path / "run", restart=True)
    run_md(whole, CONFIG, tmp_path / "whole")
    assert np.array_equal(atoms.positions, whole.positions)
    for name in ("trajectory.extxyz", "final.extxyz"):
        parts, once = ((tmp_path / f / name).read_bytes() for f in ("run", "whole"))
        assert parts == once


def test_disk_that_is_full_at_once_is_found_before_the_first_step(tmp_path):
    told = in_another_process(run_on_a_small_disk, tmp_path / "run", 100)
    assert "cannot write into the output folder" in told
    assert "make room there, or choose another folder" in told


def test_last_good_state_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        RunFolder, "write", lambda self, name, content: full() if "good" in name else None
    )
    with pytest.raises(MDError, match=r"max_force.*could not be written \(No space left"):
        run_md(cluster(), MDConfig(steps=60, max_force=0.05), tmp_path)


def test_growing_file_takes_back_what_did_not_fit(tmp_path):
    class Full:
        """Takes five bytes and no more."""

        def __init__(self, file):
            self._file, self._room = file, 5

        def write(self, content):
            if not self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self._file.write(content[: self._room])
            self._room -= written
            return written

        def __getattr__(self, name):
            return getattr(self._file, name)

    file = GrowingFile(tmp_path / "a")
    file.append(b"whole\n")
    file._file = Full(file._file)
    with pytest.raises(OSError, match="No space"):
        file.append(b"this does not fit\n")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"whole\n"


def test_growing_files_are_cut_back(tmp_path):
    (tmp_path / "a").write_bytes(b"one\ntwo\nthr")
    file = GrowingFile(tmp_path / "a", 4)
    file.append(b"2\n")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"one\n2\n"


def test_room_is_looked_at_first(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda _: usage)
    with pytest.warns(UserWarning, match=r"will take about 2.00 GB, .* room for 0.00 GB"):
        warn_about_room(tmp_path, 2 * 10**9)
    with pytest.warns(UserWarning, match="fewer frames"):
        run_md(cluster(), MDConfig(steps=1), tmp_path / "a")


@pytest.mark.parametrize("place", ["a file", "not writable"])
def test_unwritable_folder_is_found_before_anything_is_computed(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / "run"
    if place == "not writable":
        (tmp_path / "closed").mkdir(mode=0o500)
        # the superuser may write everywhere but into the kernel's own tree
        folder = tmp_path / "closed" / "run" if os.geteuid() else Path("/proc/phicalc-run")
        if os.geteuid() == 0 and not Path("/proc/self").exists():
            pytest.skip("the superuser can write everywhere here")
    atoms = cluster()
    with pytest.raises(OSError, match="cannot write into the output folder .*run"):
        run_md(atoms, CONFIG, folder)
    assert atoms.calc.calls == 0
    assert not atoms.get_momenta().any()
    assert (tmp_path / "file").read_text() == "mine"


def try_to_run(queue, folder: Path) -> None:
    try:
        run_md(cluster(), CONFIG, folder, overwrite=True)
    except RuntimeError as error:
        queue.put(str(error))
    else:
        queue.put("no error")


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with locked(tmp_path):
        told = in_another_process(try_to_run, tmp_path)
        assert "a run is going on in" in told
        assert f"process {os.getpid()} on " in told
        with pytest.raises(RuntimeError, match="a run is going on"):
            run_md(cluster(), CONFIG, tmp_path)
    assert in_another_process(try_to_run, tmp_path) == "no error"


def hold(queue, folder: Path) -> None:
    with locked(folder):
        queue.put("locked")
        queue.close()
        queue.join_thread()
        os._exit(9)  # as if killed: nothing is cleaned up


def test_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    assert in_another_process(hold, tmp_path) == "locked"
    assert (tmp_path / ".lock").read_text().startswith("process ")
    run_md(cluster(), CONFIG, tmp_path)


def test_file_systems_without_locks_are_warned_of(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="cannot be locked"), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.positions.__setitem__(2, np.nan), r"position of atom 2 \(Ar\)"),
        (lambda atoms: atoms.set_cell(atoms.cell * np.nan), "the cell is not finite"),
        (
            lambda atoms: atoms.arrays.__setitem__("momenta", np.full((6, 3), np.inf)),
            r"momentum of atom 0 \(Ar\) is not finite",
        ),
    ],
    ids=["positions", "cell", "momenta"],
)
def test_structures_that_are_no_numbers_are_refused(change, message, tmp_path):
    atoms = cluster()
    change(atoms)
    with pytest.raises(ValueError, match=message):
        run_md(atoms, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_exploding_start_is_stopped(tmp_path):
    atoms = cluster()
    atoms.positions[1] += 4.0
    config = MDConfig(steps=200, timestep=20.0, max_temperature=5e3)
    with pytest.raises(MDError, match=r"K, more than max_temperature.*last good state \(step"):
        run_md(atoms, config, tmp_path)
    saved = ase.io.read(tmp_path / "last_good.extxyz")
    assert np.isfinite(saved.positions).all()


def test_out_of_memory_is_answered_with_advice(tmp_path):
    class Greedy(Springs):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if self.calls == 5:
                raise MemoryError

    with pytest.raises(MDError, match=r"out of memory: use a smaller structure.*\(step 3\)"):
        run_md(cluster(Greedy()), CONFIG, tmp_path)


def test_near_atoms_are_warned_of_once(tmp_path):
    atoms = cluster()
    atoms.positions[4] = atoms.positions[1] + [0.9, 0, 0]
    config = MDConfig(steps=3, timestep=0.01, log_interval=1, max_force=1e6)
    with pytest.warns(match=r"step 0: atoms 1 \(Ar\) and 4 \(Ar\) are 0.90 Å apart") as caught:
        run_md(atoms, config, tmp_path)
    assert len(caught) == 1


def test_plausible_water_is_not_warned_of_and_senseless_charges_are(tmp_path):
    class Charged(Springs):
        implemented_properties = [*Springs.implemented_properties, "charges"]

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["charges"] = np.array([0.4, -0.8, 0.4, 0.4, -0.8, self.last])

    config = MDConfig(steps=3, timestep=0.01, log_interval=1, max_force=1e6)
    atoms = waters()
    atoms.calc = Charged()
    atoms.calc.last = 0.4
    run_md(atoms, config, tmp_path / "a")
    atoms.calc.last = 1.2
    with pytest.warns(UserWarning, match=r"charge of atom 5 \(H\) is \+1.20 e"):
        run_md(atoms, config, tmp_path / "b")


def test_a_committee_that_disagrees_is_warned_of_once(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = CommitteeCalculator([tiny_potential(seed) for seed in (1, 2)])
    atoms.get_forces()
    spread = atoms.calc.committee_results["forces_std"]
    atom, largest = int(spread.argmax()), float(spread.max())
    steps = {"steps": 2, "timestep": 1e-3, "temperature": 1.0, "log_interval": 1}
    run_md(atoms, MDConfig(**steps, committee_threshold=2 * largest), tmp_path / "a")
    mixed = molecule("H2O")  # the same beside another calculator
    mixed.calc = SumCalculator([atoms.calc, LennardJones(sigma=0.1)])
    config = MDConfig(**steps, committee_threshold=largest / 2)
    for number, water in enumerate((atoms, mixed)):
        text = rf"step 0: the committee .* atom {atom} \({atoms.symbols[atom]}\) by {largest:.2g}"
        with pytest.warns(UserWarning, match=text) as caught:
            run_md(water, config, tmp_path / f"{number}")
        assert len(caught) == 1


def test_drift_is_reported_in_meV_per_atom_and_picosecond(tmp_path):
    class Leaking(Springs):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["energy"] = self.results["free_energy"] = 0.006 * self.calls
            self.results["forces"] *= 0

    config = MDConfig(ensemble="nve", steps=40, timestep=1.0, log_interval=1)
    result = run_md(cluster(Leaking()), config, tmp_path)
    assert result.drift == pytest.approx(1000, rel=0.01)  # 1 meV per atom in each femtosecond
    short = run_md(cluster(), MDConfig(steps=1), tmp_path, overwrite=True)
    assert np.isnan(short.drift)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Structure and model, where the command line runs."""
    monkeypatch.chdir(tmp_path)
    write_structures("box.extxyz", [waters()])
    save_tiny_model(Path("tiny"))
    return ["md", "box.extxyz", "--no-report", "--timestep", "0.1"]


def test_command_line_says_what_is_wrong_with_a_model(inputs, capsys):
    assert cli.main([*inputs, "--model", "tiny", "--steps", "4", "--output", "run"]) == 0
    weights = Path("tiny/weights.safetensors")
    good = weights.read_bytes()
    weights.write_bytes(good[:-3] + b"abc")
    arguments = [*inputs, "--model", "tiny", "--steps", "8", "--output", "run", "--restart"]
    assert cli.main(arguments) == 2
    assert "sha256" in capsys.readouterr().err.lower().replace("-", "")
    weights.write_bytes(good)
    save_tiny_model(Path("other"), seed=2)
    arguments = [*inputs, "--model", "other", "--steps", "8", "--output", "run", "--restart"]
    assert cli.main(arguments) == 2
    assert "other settings (calculator.sha256: " in capsys.readouterr().err
    assert read_log("run/log.csv")["step"].tolist() == [0, 4]
    assert cli.main([*inputs, "--steps", "8", "--output", "run", "--restart"]) == 0
    assert "continued after step 4" in capsys.readouterr().out
    assert read_log("run/log.csv")["step"].tolist() == [0, 8]


def test_a_folder_of_members_runs_as_a_committee_and_goes_on(inputs, capsys):
    for number in (0, 1):
        save_tiny_model(Path(f"team/member_{number}/model"), seed=number + 1)
    arguments = [*inputs, "--model", "team", "--output", "run"]
    with pytest.warns(UserWarning, match="step 0: the committee disagrees about the force on atom"):
        assert cli.main([*arguments, "--steps", "4", "--committee-threshold", "1e-6"]) == 0
    again = [*inputs, "--output", "run", "--restart", "--steps", "6"]
    assert cli.main([*again, "--committee-threshold", "1e6"]) == 0  # the model is that of the run
    assert "continued after step 4" in capsys.readouterr().out
    save_tiny_model(Path("team/member_1/model"), seed=7)
    assert cli.main([*again, "--model", "team", "--steps", "8"]) == 2
    assert "other settings (calculator.sha256: " in capsys.readouterr().err


def test_unknown_elements_are_refused_before_the_run(inputs, capsys):
    atoms = waters()
    atoms.symbols[0] = "Cl"
    write_structures("box.extxyz", [atoms])
    assert cli.main([*inputs, "--model", "tiny", "--output", "run"]) == 2
    assert "unknown elements Cl" in capsys.readouterr().err


def test_a_run_is_described_by_one_file_and_arguments_go_first(inputs, capsys):
    Path("run.yaml").write_text(
        "ensemble: nvt\nthermostat: bussi\ntemperature: 250\nsteps: 4\nlog_interval: 2\n"
        "calculator:\n  model: tiny\n  dtype: float64\n"
    )
    arguments = [*inputs, "--config", "run.yaml", "--steps", "6", "--output", "run"]
    assert cli.main(arguments) == 0
    assert read_log("run/log.csv")["step"].tolist() == [0, 2, 4, 6]
    # what a run leaves describes it, and starts it again
    assert cli.main(["md", "box.extxyz", "--no-report", "--config", "run/config.json"]) == 0
    for name in ("final.extxyz", "config.json"):
        assert Path("md", name).read_bytes() == Path("run", name).read_bytes()
    assert '"dtype": "float64"' in Path("md/config.json").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temprature: 300\n", "unknown key 'temprature'. Did you mean 'temperature'"),
        ("steps: 3\nsteps: 4\n", "'steps' appears twice"),
        ("steps: many\n", "'steps' must be a whole number"),
        ("calculator:\n  modle: water\n", "has no parameters 'modle'"),
        ("ensemble: npt\nthermostat: bussi\n", "'thermostat' must be one of"),
        ("[1, 2]\n", "expected keys and values"),
    ],
)
def test_files_that_describe_no_run_are_refused(text, message, inputs, capsys):
    Path("run.yaml").write_text(text)
    assert cli.main([*inputs, "--config", "run.yaml"]) == 2
    assert message in capsys.readouterr().err
    assert cli.main([*inputs, "--config", "nothing.yaml"]) == 2
    assert "no configuration file 'nothing.yaml'" in capsys.readouterr().err


def test_out_of_memory_on_the_processor_is_no_traceback(monkeypatch):
    def greedy(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] can't allocate memory")

    atoms = waters()
    atoms.calc = PhiCalculator(tiny_potential())
    monkeypatch.setattr("phicalc.inference.evaluate.from_ase", greedy)
    with pytest.raises(RuntimeError, match="out of memory: use a smaller structure"):
        atoms.get_potential_energy()
