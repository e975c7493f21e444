"""Runs: files, seeds, guard rails, and nothing computed that nobody asked for."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, all_changes
from ase.calculators.emt import EMT

import phicalc.calculators.phicalculator
import phicalc.md.driver as driver
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.md import MDConfig, MDError, read_log, run_md
from phicalc.md.config import read_description
from phicalc.potential import build_potential
from phicalc.structures import water_box

from ..tiny import flat_config


class Scripted(EMT):
    """Copper that counts its calls, and does what it is told from a certain call on."""

    def __init__(self, from_call: float = np.inf, action=None, offset: float = 0.0):
        super().__init__()
        self.calls: list[tuple[str, ...]] = []
        self._from_call, self._action, self._offset = from_call, action, offset

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.calls.append(tuple(properties))
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += self._offset
        if len(self.calls) >= self._from_call:
            self._action(self.results)


def copper(**settings) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = Scripted(**settings)
    return atoms


def tiny_potential():
    config = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1
    )
    return build_potential(config, seed=1)


def nan_forces(results):
    results["forces"][:] = np.nan


def huge_forces(results):
    results["forces"][2, 0] = 1e4


def failure(results):
    raise CalculationFailed("out of memory")


def interruption(results):
    raise KeyboardInterrupt


def test_run_leaves_log_trajectory_settings_and_final_structure(tmp_path):
    atoms = copper()
    config = MDConfig(timestep=2.0, steps=25, log_interval=10, trajectory_interval=5, seed=3)
    result = run_md(atoms, config, tmp_path / "new" / "folder")
    log = read_log(result.log)
    assert log["step"].tolist() == [0, 10, 20, 25]
    np.testing.assert_allclose(log["time_ps"], log["step"] * 0.002, atol=1e-9)
    frames = ase.io.read(result.trajectory, ":")
    assert [frame.info["step"] for frame in frames] == [0, 5, 10, 15, 20, 25]
    np.testing.assert_allclose(frames[-1].positions, atoms.positions, atol=1e-7)
    np.testing.assert_allclose(frames[-1].get_momenta(), atoms.get_momenta(), atol=1e-7)
    np.testing.assert_allclose(frames[-1].get_forces(), atoms.get_forces(), atol=1e-7)
    final = ase.io.read(result.final)
    np.testing.assert_allclose(final.get_momenta(), atoms.get_momenta(), atol=1e-7)
    described = read_description(tmp_path / "new/folder/config.json")
    assert MDConfig(**described.settings) == config
    assert described.calculator["name"] == "Scripted"
    assert result.ns_per_day == pytest.approx(25 * 2e-6 * 86400 / result.seconds)


def test_same_seed_same_run(tmp_path):
    def final_positions(name: str, seed: int) -> np.ndarray:
        atoms = copper()
        run_md(atoms, MDConfig(timestep=2.0, steps=10, seed=seed), tmp_path / name)
        return atoms.positions

    first = final_positions("a", 7)
    assert np.array_equal(first, final_positions("b", 7))
    assert not np.allclose(first, final_positions("c", 8))


def test_log_shows_a_nano_electronvolt_on_top_of_a_mega_electronvolt(tmp_path):
    config = MDConfig(ensemble="nve", timestep=0.5, steps=4, log_interval=1)
    plain = read_log(run_md(copper(), config, tmp_path / "a").log)
    shifted = read_log(run_md(copper(offset=1e6), config, tmp_path / "b").log)
    difference = shifted["conserved_energy_eV"] - plain["conserved_energy_eV"] - 1e6
    assert np.abs(difference).max() < 3e-9
    assert np.ptp(plain["conserved_energy_eV"]) > 0


def test_density_is_logged_for_cells_and_not_for_molecules(tmp_path):
    log = read_log(run_md(copper(), MDConfig(steps=2), tmp_path / "a").log)
    assert log["density_g_cm3"][0] == pytest.approx(8.98, abs=0.05)
    water = molecule("H2O")
    water.calc = EMT()
    log = read_log(run_md(water, MDConfig(steps=2), tmp_path / "b").log)
    assert "density_g_cm3" not in log
    assert "pressure_bar" not in log


@pytest.mark.parametrize(
    "settings",
    [{"ensemble": "nve"}, {}, {"thermostat": "bussi"}, {"thermostat": "nose-hoover"}],
    ids=["nve", "langevin", "bussi", "nose-hoover"],
)
def test_one_evaluation_per_step_and_no_stress_unasked(settings, tmp_path):
    atoms = copper()
    run_md(atoms, MDConfig(steps=12, log_interval=1, trajectory_interval=1, **settings), tmp_path)
    assert len(atoms.calc.calls) == 13
    assert not any("stress" in call for call in atoms.calc.calls)


@pytest.mark.parametrize("settings", [{"ensemble": "npt"}, {"log_pressure": True}])
def test_phicalc_needs_one_evaluation_per_step_for_pressure_too(settings, tmp_path, monkeypatch):
    wanted_stress = []

    def counting(*args, stress, **kwargs):
        wanted_stress.append(stress)
        return evaluate(*args, stress=stress, **kwargs)

    evaluate = phicalc.calculators.phicalculator.evaluate
    monkeypatch.setattr(phicalc.calculators.phicalculator, "evaluate", counting)
    atoms = water_box(2, density=0.2)
    atoms.calc = PhiCalculator(tiny_potential())
    run_md(atoms, MDConfig(steps=5, timestep=0.1, log_interval=1, **settings), tmp_path)
    assert len(wanted_stress) <= 7  # the first structure may be computed twice
    assert all(wanted_stress[1:])


def test_trajectory_keeps_charges(tmp_path):
    atoms = water_box(2, density=0.2)
    atoms.calc = PhiCalculator(tiny_potential())
    result = run_md(atoms, MDConfig(steps=2, timestep=0.1, trajectory_interval=1), tmp_path)
    last = ase.io.read(result.trajectory, "-1")
    np.testing.assert_allclose(last.get_charges(), atoms.get_charges(), atol=1e-7)
    assert np.ptp(last.get_charges()) > 1e-3


def test_dynamics_keeps_the_allocators_memory_and_importing_does_not(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(driver, "keep_freed_memory", lambda: calls.append(True))
    run_md(copper(), MDConfig(steps=1), tmp_path)
    assert calls == [True]


def test_no_progress_bar_unless_on_a_terminal(tmp_path, capfd):
    run_md(copper(), MDConfig(steps=2), tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (nan_forces, "step 6: forces or velocities are not finite"),
        (huge_forces, r"step 6: the force on atom 2 \(Cu\) is 10000.0 eV/Å, more than max_force"),
        (failure, "out of memory"),
    ],
)
def test_breakdown_stops_the_run_and_saves_the_last_good_state(action, message, tmp_path):
    atoms = copper(from_call=7, action=action)  # the calls of steps 0 to 5 are good
    config = MDConfig(timestep=2.0, steps=20, log_interval=1, trajectory_interval=1)
    with pytest.raises(MDError, match=message) as caught:
        run_md(atoms, config, tmp_path)
    assert "last good state (step 5) is in" in str(caught.value)
    saved = ase.io.read(tmp_path / "last_good.extxyz")
    assert saved.info["step"] == 5
    logged = ase.io.read(tmp_path / "trajectory.extxyz", ":")
    assert len(logged) == 6
    np.testing.assert_allclose(saved.positions, logged[-1].positions, atol=1e-7)
    np.testing.assert_allclose(saved.get_momenta(), logged[-1].get_momenta(), atol=1e-7)
    assert read_log(tmp_path / "log.csv")["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert not (tmp_path / "final.extxyz").exists()


def test_run_away_temperature_stops_the_run(tmp_path):
    config = MDConfig(temperature=300.0, max_temperature=50.0, steps=20)
    with pytest.raises(MDError, match=r"step 0: the temperature is \d+ K.*No good state"):
        run_md(copper(), config, tmp_path)
    assert not (tmp_path / "last_good.extxyz").exists()


def test_interruption_saves_the_last_good_state(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_md(copper(from_call=4, action=interruption), MDConfig(steps=20), tmp_path)
    assert ase.io.read(tmp_path / "last_good.extxyz").info["step"] == 2


def test_earlier_run_is_not_overwritten_unasked(tmp_path):
    first = run_md(copper(), MDConfig(steps=2), tmp_path)
    before = first.trajectory.read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already"):
        run_md(copper(), MDConfig(steps=3), tmp_path)
    assert first.trajectory.read_bytes() == before
    (tmp_path / "report.png").write_bytes(b"stale")
    (tmp_path / "notes.txt").write_text("mine")
    run_md(copper(), MDConfig(steps=3, trajectory_interval=1), tmp_path, overwrite=True)
    assert len(ase.io.read(first.trajectory, ":")) == 4
    assert not (tmp_path / "report.png").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_settings_that_do_not_fit_destroy_nothing(tmp_path):
    water = molecule("H2O")
    water.calc = EMT()
    first = run_md(water, MDConfig(steps=2), tmp_path)
    with pytest.raises(ValueError, match="periodic in three directions"):
        run_md(water, MDConfig(ensemble="npt"), tmp_path, overwrite=True)
    assert first.final.exists()


@pytest.mark.parametrize("atoms", [bulk("Cu"), Atoms()], ids=["no calculator", "no atoms"])
def test_dynamics_needs_atoms_with_a_calculator(atoms, tmp_path):
    with pytest.raises(ValueError, match="dynamics needs"):
        run_md(atoms, MDConfig(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_step_at_all_evaluates_and_saves_the_start(tmp_path):
    result = run_md(copper(), MDConfig(steps=0), tmp_path)
    assert len(read_log(result.log)["step"]) == 1
    assert len(ase.io.read(result.trajectory, ":")) == 1


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step,time_ps\n"])
def test_read_log_refuses_other_files(text, tmp_path):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match="is not the log of a run"):
        read_log(tmp_path / "log.csv")
