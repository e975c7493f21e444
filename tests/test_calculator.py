"""PhiCalculator against ASE's contract: results, cache, errors, and life inside ASE's tools."""

import json
import os
import pickle
import subprocess
import sys
import warnings
from copy import deepcopy
from pathlib import Path

import ase.calculators.calculator as ase_calculator
import ase.io
import jaxtyping
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import (
    CalculationFailed,
    CalculatorSetupError,
    InputError,
    PropertyNotImplementedError,
    ReadError,
    all_properties,
)
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.loggingcalc import LoggingCalculator
from ase.calculators.mixing import SumCalculator
from ase.filters import FrechetCellFilter
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.optimize import BFGS
from ase.units import fs

import phicalc.compiled.predictor
import phicalc.inference.evaluate
import phicalc.potential
import phicalc.skin
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.checkpoint import ModelCard, load_model, model_digest, save_model
from phicalc.electrostatics.charges import qeq
from phicalc.electrostatics.charges.solvers import ConjugateGradientSolver
from phicalc.neighbors import neighbor_list
from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.structures import water_box
from phicalc.testing import CONTRACT, from_calculator

from .tiny import flat_config

# Random weights make forces and charges beyond all sense.
pytestmark = pytest.mark.filterwarnings("ignore:the (force on|charge of) atom")

SHAPES = {"energies": (), "forces": (3,), "charges": ()}


def tiny(head: str = "qeq", seed: int = 0) -> Potential:
    config = flat_config(
        elements=("H", "O"),
        cutoff=3.0,
        layers=1,
        channels=4,
        l_max=1,
        correlation=2,
        head=head,
        charge_feedback="embedding" if head == "qeq" else "none",
        reference_energies=(-13.6, -2040.0),
        average_neighbors=4.0,
        force_accuracy=1e-9,
    )
    return build_potential(config, seed=seed)


@pytest.fixture(scope="module")
def potentials() -> dict[str, Potential]:
    return {head: tiny(head) for head in ("none", "qeq")}


@pytest.fixture
def calc(potentials: dict[str, Potential]) -> PhiCalculator:
    return PhiCalculator(potentials["qeq"], device="cpu", dtype="float64")


def water() -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    return atoms


def crystal() -> Atoms:
    """Two waters in a small skewed cell."""
    atoms = molecule("H2O") + molecule("H2O")
    atoms.positions[3:] += (1.8, 1.9, 2.1)
    atoms.rattle(0.05, seed=2)
    atoms.set_cell([[4.2, 0.0, 0.0], [0.5, 4.0, 0.0], [-0.3, 0.4, 4.4]])
    atoms.pbc = True
    return atoms


STRUCTURES = {"open": water, "periodic": crystal}


def count_predictions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note every evaluation of the potential: with stress or without."""
    calls: list[bool] = []
    predict = phicalc.compiled.predictor.predict

    def counted(*args, stress: bool, **kwargs):
        calls.append(stress)
        return predict(*args, stress=stress, **kwargs)

    monkeypatch.setattr(phicalc.compiled.predictor, "predict", counted)
    return calls


# --- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head", ["none", "qeq"])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_results_have_the_types_shapes_and_sums_ase_expects(potentials, kind, head, dtype):
    atoms = STRUCTURES[kind]()
    calc = atoms.calc = PhiCalculator(potentials[head], device="cpu", dtype=dtype)
    energy = atoms.get_potential_energy()
    assert type(energy) is float
    assert atoms.get_potential_energy(force_consistent=True) == energy
    if kind == "periodic":
        assert atoms.get_stress().shape == (6,)
    expected = {"energy", "free_energy", "energies", "forces"}
    expected |= {"charges"} if head == "qeq" else set()
    expected |= {"dipole"} if head == "qeq" and kind == "open" else set()
    expected |= {"stress"} if kind == "periodic" else set()
    assert set(calc.results) == expected
    assert expected <= set(all_properties)
    for name in expected & set(SHAPES):
        assert calc.results[name].shape == (len(atoms), *SHAPES[name])
    for name in expected - {"energy", "free_energy"}:
        assert calc.results[name].dtype == np.float64
    assert calc.results["energies"].sum() == pytest.approx(energy, abs=1e-9)
    assert sum(calc.energy_terms.values()) == pytest.approx(energy, abs=1e-9)
    n_waters = len(atoms) // 3
    assert calc.energy_terms["reference"] == pytest.approx(-2067.2 * n_waters, abs=1e-9)
    assert ("electrostatic" in calc.energy_terms) == (head == "qeq")
    if head == "qeq":
        assert atoms.get_charges().sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("charge", [0, 1])
@pytest.mark.parametrize("head", ["none", "qeq"])
@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.filterwarnings("ignore:total charge 1 e")
def test_forces_and_stress_are_derivatives_of_the_energy(potentials, kind, head, charge):
    atoms = STRUCTURES[kind]()
    atoms.calc = PhiCalculator(potentials[head], device="cpu", dtype="float64", total_charge=charge)
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 2])
    forces = atoms.get_forces()
    assert np.abs(numerical - forces[[0, 2]]).max() <= 1e-6 * np.abs(forces).max()
    assert np.abs(forces).max() > 0.1
    if kind == "periodic":
        stress = atoms.get_stress()
        numerical = calculate_numerical_stress(atoms, eps=1e-4)
        assert np.abs(numerical - stress).max() <= 1e-6 * np.abs(stress).max()
        assert np.abs(stress).max() > 1e-3


def test_dipole_is_that_of_the_charges(calc):
    atoms = water()
    atoms.calc = calc
    dipole = atoms.get_dipole_moment()
    assert dipole == pytest.approx(atoms.get_charges() @ atoms.positions, abs=1e-12)
    atoms.info["charge"] = 1
    charged = atoms.get_dipole_moment()
    atoms.translate((3.0, -2.0, 1.0))
    atoms.set_masses([1.0, 2.0, 3.0])  # the origin is the centre of the standard masses
    assert atoms.get_dipole_moment() == pytest.approx(charged, abs=1e-9)
    centre = water().get_center_of_mass()
    expected = atoms.get_charges() @ (water().positions - centre)
    assert charged == pytest.approx(expected, abs=1e-9)


def test_energy_terms_are_a_copy_and_empty_at_first(calc):
    assert calc.energy_terms == {}
    calc.get_potential_energy(water())
    calc.energy_terms.clear()
    assert calc.energy_terms


def test_network_precision_is_what_was_asked_for(potentials):
    atoms = crystal()
    single = PhiCalculator(potentials["qeq"], device="cpu")
    double = PhiCalculator(potentials["qeq"], device="cpu", dtype="float64")
    assert {p.dtype for p in single.potential.parameters()} == {torch.float32}
    assert {p.dtype for p in double.potential.parameters()} == {torch.float64}
    difference = abs(single.get_potential_energy(atoms) - double.get_potential_energy(atoms))
    assert 0 < difference < 1e-4


# --- undefined properties ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stresses", "magmom", "magmoms", "born_effective_charges"])
def test_properties_we_do_not_have(calc, name):
    with pytest.raises(PropertyNotImplementedError, match=f"{name} property not implemented"):
        calc.get_property(name, water())


def test_stress_without_a_volume(calc, potentials):
    atoms = water()
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match=r"pbc=\[True, True, True\]"):
        atoms.get_stress()
    assert calc.results["energy"] == energy  # still valid for this structure
    slab = crystal()
    slab.pbc = [True, True, False]
    slab.calc = PhiCalculator(potentials["none"], device="cpu")
    assert np.isfinite(slab.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError, match="stress is defined for"):
        slab.get_stress()


def test_dipole_of_a_periodic_structure(calc):
    atoms = crystal()
    atoms.calc = calc
    with pytest.raises(PropertyNotImplementedError, match="dipole of a periodic structure"):
        atoms.get_dipole_moment()
    assert atoms.get_charges().shape == (6,)


def test_asking_without_calculating(calc):
    assert calc.get_property("energy", water(), allow_calculation=False) is None
    assert calc.results == {}


def test_implemented_properties_belong_to_the_instance(potentials):
    class_list = list(PhiCalculator.implemented_properties)
    first = PhiCalculator(potentials["qeq"], device="cpu")
    second = PhiCalculator(potentials["qeq"], device="cpu")
    without = PhiCalculator(potentials["none"], device="cpu")
    first.implemented_properties.append("magmoms")
    assert second.implemented_properties == class_list
    assert PhiCalculator.implemented_properties == class_list
    assert set(class_list) - set(without.implemented_properties) == {"charges", "dipole"}
    with pytest.raises(PropertyNotImplementedError):
        without.get_charges(water())
    without.set(model=potentials["qeq"])
    assert without.implemented_properties == class_list


# --- cache ---------------------------------------------------------------------------------------


def test_nothing_is_computed_twice_nor_unasked(calc, monkeypatch):
    calls = count_predictions(monkeypatch)
    atoms = crystal()
    atoms.calc = calc
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_charges()
    assert calls == [False]
    atoms.get_stress()
    assert calls == [False, True]
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()  # stress was wanted once: as in NPT, one evaluation for all
    atoms.get_stress()
    assert calls == [False, True, True]
    calc.get_forces(water())
    assert calls[3:] == [False]
    calc.reset()
    calc.get_forces(atoms)
    assert calls[4:] == [False]


def test_arrays_are_returned_as_copies(calc):
    atoms = water()
    atoms.calc = calc
    atoms.get_forces()[:] = 0
    assert np.abs(atoms.get_forces()).max() > 0.1


@pytest.mark.parametrize("change", ["positions", "cell", "pbc", "numbers"])
def test_changes_of_the_structure_are_noticed(calc, change):
    atoms = crystal()
    atoms.calc = calc
    before = atoms.get_potential_energy()
    if change == "positions":
        atoms.positions[1, 2] += 0.1
    elif change == "cell":
        atoms.cell[2, 2] += 0.1
    elif change == "pbc":
        atoms.pbc = False
    else:
        atoms.numbers[[0, 1]] = atoms.numbers[[1, 0]]
    assert calc.calculation_required(atoms, ["energy"])
    assert atoms.get_potential_energy() != before


def test_changes_that_do_not_matter_are_ignored(calc, monkeypatch):
    calls = count_predictions(monkeypatch)
    atoms = water()
    atoms.calc = calc
    atoms.get_potential_energy()
    atoms.set_initial_magnetic_moments([1, 0, 0])
    atoms.set_initial_charges([1, 0, 0])
    atoms.set_masses([1, 1, 1])
    atoms.info["field"] = np.zeros(3)
    atoms.info["field"] = np.ones(3)
    assert not calc.calculation_required(atoms, ["energy", "forces"])
    atoms.get_potential_energy()
    assert len(calls) == 1


def test_a_charge_edited_in_place_is_noticed(calc):
    atoms = water()
    atoms.calc = calc
    charge = atoms.info["charge"] = np.array(0.0)
    neutral = atoms.get_potential_energy()
    charge += 1
    assert "total_charge" in calc.check_state(atoms)
    assert atoms.get_charges().sum() == pytest.approx(1)
    assert atoms.get_potential_energy() != neutral
    del atoms.info["charge"]
    assert atoms.get_potential_energy() == neutral


def test_three_ways_to_set_the_charge_agree(potentials):
    def calculator(**kwargs) -> PhiCalculator:
        return PhiCalculator(potentials["qeq"], device="cpu", dtype="float64", **kwargs)

    atoms = water()
    neutral = calculator().get_potential_energy(atoms)
    by_constructor = calculator(total_charge=1).get_potential_energy(atoms)
    calc = calculator()
    calc.get_potential_energy(atoms)
    calc.set(total_charge=1)
    by_set = calc.get_potential_energy(atoms)
    atoms.info["charge"] = 1
    by_info = calculator().get_potential_energy(atoms)
    assert by_info == by_constructor == by_set
    assert abs(by_info - neutral) > 0.1


def test_the_constructors_charge_goes_before_that_of_the_structure(potentials, monkeypatch):
    calls = count_predictions(monkeypatch)
    atoms = water()
    calc = atoms.calc = PhiCalculator(potentials["qeq"], device="cpu", total_charge=0)
    atoms.info["charge"] = 1
    assert atoms.get_charges().sum() == pytest.approx(0, abs=1e-9)
    atoms.info["charge"] = 2
    assert not calc.calculation_required(atoms, ["energy"])
    calc.set(total_charge=None)
    assert atoms.get_charges().sum() == pytest.approx(2)
    assert len(calls) == 2


def test_several_structures_share_a_calculator(calc, potentials):
    pairs = [(make(), make()) for make in (water, crystal, lambda: molecule("OH"))]
    expected = []
    for _, alone in pairs:
        alone.calc = PhiCalculator(potentials["qeq"], device="cpu", dtype="float64")
        expected.append((alone.get_potential_energy(), alone.get_forces()))
    for _ in range(2):
        for (shared, _), (energy, forces) in zip(pairs, expected, strict=True):
            shared.calc = calc
            assert shared.get_potential_energy() == energy
            assert np.array_equal(shared.get_forces(), forces)


def test_a_failure_leaves_no_old_results(calc):
    good, bad = water(), water()
    energy = calc.get_potential_energy(good)
    bad.positions[0, 0] = np.nan
    with pytest.raises(InputError):
        calc.calculate(bad, ["energy"])
    assert calc.results == {}
    assert calc.energy_terms == {}
    assert calc.get_potential_energy(good) == energy


def test_calculate_without_a_structure(calc):
    with pytest.raises(InputError, match="no structure yet"):
        calc.calculate()
    energy = calc.get_potential_energy(water())
    calc.calculate()
    assert calc.results["energy"] == energy


# --- parameters ----------------------------------------------------------------------------------


@pytest.fixture
def model_folder(tmp_path: Path, potentials) -> Path:
    known = {"domain": {"closed_shell": False}}
    card = ModelCard(name="tiny", charge_range=(-1.0, 1.0), data=known)
    save_model(tmp_path / "tiny", potentials["qeq"], card)
    return tmp_path / "tiny"


def test_a_model_is_loaded_by_name_or_path(model_folder, potentials, monkeypatch):
    in_memory = PhiCalculator(potentials["qeq"], device="cpu")
    by_path = PhiCalculator(model_folder, device="cpu")
    monkeypatch.setenv("PHICALC_MODELS", str(model_folder.parent))
    by_name = PhiCalculator("tiny", device="cpu")
    energies = {c.get_potential_energy(water()) for c in (in_memory, by_path, by_name)}
    assert len(energies) == 1
    assert by_name.card == load_model(model_folder)[1]
    assert in_memory.card is None
    assert by_name.name == "phicalc"
    with pytest.raises(FileNotFoundError, match="no model 'tinny'.*tiny"):
        PhiCalculator("tinny")


def test_parameters_are_json(model_folder, potentials):
    for model in (model_folder, potentials["qeq"]):
        calc = PhiCalculator(
            model, device=torch.device("cpu"), dtype="float64", total_charge=np.float32(1)
        )
        assert json.loads(json.dumps(calc.todict())) == calc.todict()
        assert set(calc.todict()) == {"model", "device", "dtype", "total_charge"}
        assert set(calc.parameters) == set(PhiCalculator.default_parameters)
    assert calc.parameters["model"].startswith("potential in memory, sha256 ")
    assert model_digest(potentials["qeq"]) in calc.parameters["model"]


def test_set_drops_results_and_rebuilds(calc, potentials):
    atoms = water()
    first = calc.get_potential_energy(atoms)
    assert calc.set() == {}
    assert calc.set(dtype="float64", neighbors="auto") == {}
    assert calc.results
    assert calc.set(dtype="float32") == {"dtype": "float32"}
    assert calc.results == {}
    assert {p.dtype for p in calc.potential.parameters()} == {torch.float32}
    calc.set(dtype="float64")
    assert calc.get_potential_energy(atoms) == first
    assert set(calc.set(model=tiny(seed=5))) == {"model"}
    assert calc.get_potential_energy(atoms) != first


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"cutoff": 5.0}, "no parameters 'cutoff'.*it has model, device, dtype"),
        ({"dtype": "float16"}, "'float32' or 'float64', got 'float16'"),
        ({"device": "abacus"}, "device must be 'auto', 'cpu', 'cuda'"),
        ({"device": "cuda:99"}, "is not there"),
        ({"neighbors": "crystal ball"}, "neighbors must be 'auto' or one of vesin"),
        ({"total_charge": float("nan")}, "total_charge must be one finite number"),
    ],
)
def test_impossible_parameters_change_nothing(calc, potentials, parameter, message):
    with pytest.raises(InputError, match=message):
        PhiCalculator(potentials["qeq"], **parameter)
    energy = calc.get_potential_energy(water())
    before = dict(calc.parameters)
    with pytest.raises(InputError, match=message):
        calc.set(**parameter)
    with pytest.raises(FileNotFoundError):
        calc.set(model="nowhere", total_charge=1)
    assert calc.parameters == before
    assert calc.results["energy"] == energy


@pytest.mark.parametrize(
    ("accuracy", "message"),
    [
        (0, r"'force_accuracy' must be in \[1e-12, 1\] eV/Å, got 0"),
        (-1e-4, "'force_accuracy' must be in"),
        (1e-20, "'force_accuracy' must be in"),
        (10.0, "'force_accuracy' must be in"),
        (np.nan, "'force_accuracy' must be a finite number, got nan"),
        ("tight", "tight"),
        ([1e-4], "PhiCalculator: "),
    ],
)
def test_impossible_accuracies(calc, accuracy, message):
    energy = calc.get_potential_energy(water())
    with pytest.raises(InputError, match=message):
        calc.set(force_accuracy=accuracy)
    assert calc.parameters["force_accuracy"] is None
    assert calc.results["energy"] == energy


def test_potential_in_memory_is_copied(potentials):
    potential = tiny().double().train()
    calc = PhiCalculator(potential, device="cpu", dtype="float32")
    energy = calc.get_potential_energy(water())
    assert potential.training
    assert {p.dtype for p in potential.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in potential.parameters())
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.zero_()
    calc.set(total_charge=0.0)
    assert calc.get_potential_energy(water()) == energy
    calc.set(device="cpu", dtype="float64")
    assert calc.get_potential_energy(water()) == pytest.approx(energy, abs=1e-3)
    assert not calc.potential.training


def test_potential_on_several_devices_is_refused():
    potential = tiny()
    potential.embedding = torch.nn.Parameter(torch.empty_like(potential.embedding, device="meta"))
    with pytest.raises(InputError, match="spread over cpu, meta"):
        PhiCalculator(potential)


def test_ases_own_arguments(potentials, tmp_path):
    atoms = water()
    calc = PhiCalculator(
        potentials["none"], device="cpu", atoms=atoms, directory=tmp_path / "new", label="run"
    )
    assert atoms.calc is calc
    atoms.get_potential_energy()
    assert calc.label == f"{tmp_path}/new/run"
    with pytest.raises(ReadError, match="no restart files"):
        PhiCalculator(potentials["none"], restart="run")


def test_default_device(potentials):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert next(PhiCalculator(potentials["none"]).potential.parameters()).device.type == expected


def test_the_neighbour_engine_is_passed_on(potentials, monkeypatch):
    seen = []

    def noted(*args, engine: str, **kwargs):
        seen.append(engine)
        return neighbor_list(*args, engine=engine, **kwargs)

    monkeypatch.setattr(phicalc.skin, "neighbor_list", noted)
    PhiCalculator(potentials["none"], device="cpu", neighbors="vesin").get_forces(water())
    assert seen == ["vesin"]


# --- external field ------------------------------------------------------------------------------


def field_calculator(potential: Potential, **kwargs) -> PhiCalculator:
    calc = PhiCalculator(potential, device="cpu", dtype="float64")
    calc.set(**kwargs)
    return calc


def slab() -> Atoms:
    """Two waters, periodic along the first two axes; the third vector is not their normal."""
    atoms = crystal()
    atoms.pbc = [True, True, False]
    return atoms


IN_FIELD = {"open": (water, (0.3, -0.2, 0.4)), "slab": (slab, (0.0, 0.0, -0.5))}


@pytest.fixture(scope="module")
def realistic() -> dict[str, Potential]:
    """Potentials whose charges are those of water: 0.2 to 0.8 e, not too soft."""
    potentials = {head: tiny(head) for head in ("none", "qeq", "latent")}
    config = {**potentials["qeq"].config.to_dict(), "feedback": "none"}
    potentials["stationary"] = build_potential(PotentialConfig.from_dict(config))
    with torch.no_grad():
        for potential in potentials.values():
            if potential.head.has_charges:
                potential.head.readout.weight.mul_(0.1)
        potentials["latent"].head.offset.copy_(torch.tensor([0.4, -0.8]))
    return potentials


@pytest.mark.parametrize("head", ["stationary", "latent"])
@pytest.mark.parametrize("kind", IN_FIELD)
def test_forces_in_a_field_are_derivatives_of_the_energy(realistic, kind, head):
    make, field = IN_FIELD[kind]
    atoms = make()
    without = field_calculator(realistic[head]).get_forces(atoms)
    calc = atoms.calc = field_calculator(realistic[head], external_field=field)
    forces = atoms.get_forces()
    assert np.abs(forces - without).max() > 0.05
    assert np.abs(forces.sum(0)).max() < 1e-9  # no net charge, no net force
    energy = atoms.get_potential_energy()
    assert sum(calc.energy_terms.values()) == pytest.approx(energy, abs=1e-9)
    work = -atoms.get_charges() @ (atoms.positions @ field)
    assert calc.energy_terms["external_field"] == pytest.approx(work, abs=1e-9)
    atoms.translate((1.0, -2.0, 3.0))
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-8)
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 2])
    assert np.abs(numerical - forces[[0, 2]]).max() <= 1e-6 * np.abs(forces).max()


@pytest.mark.parametrize("head", ["stationary", "latent"])
@pytest.mark.parametrize("kind", IN_FIELD)
def test_energy_in_a_small_field_is_that_of_the_dipole(realistic, kind, head):
    make, direction = IN_FIELD[kind]
    field = 1e-3 * np.array(direction)
    atoms = make()
    energies = [
        field_calculator(realistic[head], external_field=sign * field).get_potential_energy(atoms)
        for sign in (1, -1)
    ]
    dipole = field_calculator(realistic[head]).get_charges(atoms) @ atoms.positions
    assert (energies[0] - energies[1]) / 2 == pytest.approx(-dipole @ field, rel=1e-4)
    assert abs(dipole @ field) > 1e-6


def test_field_of_the_constructor_goes_before_that_of_the_structure(realistic):
    field = [0.3, -0.2, 0.4]
    atoms = water()
    free = field_calculator(realistic["stationary"]).get_potential_energy(atoms)
    by_constructor = PhiCalculator(
        realistic["stationary"], device="cpu", dtype="float64", external_field=field
    )
    expected = by_constructor.get_potential_energy(atoms)
    assert abs(expected - free) > 1e-3
    calc = field_calculator(realistic["stationary"])
    calc.set(external_field=np.array(field))
    assert calc.get_potential_energy(atoms) == expected
    assert json.loads(json.dumps(calc.todict()))["external_field"] == field
    atoms.info["external_field"] = field
    assert field_calculator(realistic["stationary"]).get_potential_energy(atoms) == expected
    zero = field_calculator(realistic["stationary"], external_field=[0, 0, 0])
    assert zero.get_potential_energy(atoms) == free
    assert "external_field" not in zero.energy_terms
    zero.set(external_field=None)
    assert zero.get_potential_energy(atoms) == expected
    atoms.info["external_field"] = None
    assert zero.get_potential_energy(atoms) == free


def test_a_field_edited_in_place_is_noticed(realistic):
    atoms = water()
    calc = atoms.calc = field_calculator(realistic["stationary"])
    field = atoms.info["external_field"] = np.zeros(3)
    free = atoms.get_potential_energy()
    assert calc.check_state(atoms) == []
    field[1] = 0.2
    assert calc.check_state(atoms) == ["external_field"]
    assert abs(atoms.get_potential_energy() - free) > 1e-3
    del atoms.info["external_field"]
    assert atoms.get_potential_energy() == free


NO_FIELDS = [[0, 1], [[0, 0, 1]], 1.0, [0, 0, np.nan], [np.inf, 0, 0], "zzz", ["0", "0", "1"]]
NO_FIELDS += [[True, False, False], [1j, 0, 0], [0, 0, None], [0, [0], 1]]


@pytest.mark.parametrize("field", NO_FIELDS, ids=str)
def test_fields_that_are_no_vectors(calc, field):
    with pytest.raises(InputError, match="external_field must be three finite numbers"):
        calc.set(external_field=field)
    assert calc.parameters["external_field"] is None
    atoms = water()
    atoms.calc = calc
    atoms.get_potential_energy()
    atoms.info["external_field"] = field
    assert calc.calculation_required(atoms, ["energy"])
    with pytest.raises(InputError, match=r'info\["external_field"\] must be three finite'):
        atoms.get_potential_energy()


@pytest.mark.parametrize("where", ["constructor", "info"])
def test_fields_that_have_no_meaning_are_refused(realistic, where):
    def energy(atoms: Atoms, field: list[float], head: str = "stationary") -> float:
        kwargs = {"external_field": field} if where == "constructor" else {}
        if where == "info":
            atoms.info["external_field"] = field
        return field_calculator(realistic[head], **kwargs).get_potential_energy(atoms)

    for head in ("stationary", "latent"):
        for make, field in ((crystal, [0, 0, 0.1]), (slab, [0.1, 0, 0]), (slab, [1e-6, 0, 1])):
            with pytest.raises(InputError, match="component along a periodic axis"):
                energy(make(), field, head)
            assert np.isfinite(energy(make(), [0, 0, 0], head))
    cation = water()
    cation.info["charge"] = 1
    with pytest.raises(InputError, match="total charge of 1 e"):
        energy(cation, [0, 0, 0.1])
    with pytest.raises(CalculatorSetupError, match="this model has none"):
        energy(water(), [0, 0, 0.1], "none")


# --- accuracy and history of electrostatic sums --------------------------------------------------


def forces_with(potential: Potential, atoms: Atoms, accuracy: float | None) -> np.ndarray:
    return field_calculator(potential, force_accuracy=accuracy).get_forces(atoms)


@pytest.mark.parametrize("head", ["qeq", "latent"])
@pytest.mark.parametrize("make", [crystal, slab])
def test_the_accuracy_of_forces_is_as_asked_for(realistic, make, head):
    exact = forces_with(realistic[head], make(), 1e-11)
    errors = []
    for accuracy in (1e-2, 1e-4, 1e-6):
        errors.append(np.abs(forces_with(realistic[head], make(), accuracy) - exact).max())
        assert errors[-1] < accuracy
    assert errors[0] > 1e-7  # it does cost less
    default = forces_with(realistic[head], make(), None)
    assert np.array_equal(forces_with(realistic[head], make(), 1e-9), default)


def test_a_new_accuracy_drops_results(calc):
    atoms = crystal()
    atoms.calc = calc
    fine = atoms.get_forces()
    assert calc.set(force_accuracy=np.float32(0.5)) == {"force_accuracy": 0.5}
    assert calc.results == {}
    assert not np.array_equal(atoms.get_forces(), fine)
    calc.set(force_accuracy=None)
    assert np.array_equal(atoms.get_forces(), fine)


@pytest.mark.filterwarnings("ignore:atoms 0 .O. and 1 .H. are 0.5")
@pytest.mark.parametrize("iterated", [False, True])
@pytest.mark.parametrize("make", [crystal, slab])
def test_results_do_not_depend_on_history(realistic, make, iterated, monkeypatch, rng):
    if iterated:
        for module in (qeq, phicalc.potential):
            monkeypatch.setattr(module, "DENSE_ATOMS", 0)
    accuracy = 1e-4
    atoms = make()
    calc = atoms.calc = field_calculator(realistic["qeq"], force_accuracy=accuracy)
    first, energy = atoms.get_forces(), atoms.get_potential_energy()
    walker = atoms.copy()
    for _ in range(8):
        walker.rattle(0.05, rng=rng)
        strain = np.eye(3) + rng.normal(0, 0.03, (3, 3))
        walker.set_cell(walker.cell @ strain, scale_atoms=True)
        calc.get_forces(walker)
    assert np.abs(calc.get_forces(atoms) - first).max() < accuracy
    assert calc.get_potential_energy(atoms) == pytest.approx(energy, abs=accuracy)
    for scale in (0.6, 1.8):  # sums made for another density
        calc.reset()
        walker.set_cell(scale * atoms.cell.array)
        walker.positions = scale * atoms.positions
        calc.get_forces(walker)
        assert np.abs(calc.get_forces(atoms) - first).max() < accuracy


def noted_solvers(monkeypatch) -> list[ConjugateGradientSolver]:
    """Every conjugate-gradient solver that is made from now on."""
    solved: list[ConjugateGradientSolver] = []

    class Noted(ConjugateGradientSolver):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            solved.append(self)

    monkeypatch.setattr(qeq, "ConjugateGradientSolver", Noted)
    return solved


def test_large_structures_are_iterated_to_the_same_charges(realistic, monkeypatch):
    accuracy = 1e-5
    atoms = water_box(150)

    def results() -> dict:
        calc = field_calculator(realistic["qeq"], force_accuracy=accuracy)
        calc.calculate(atoms)
        return calc.results

    solved = noted_solvers(monkeypatch)
    iterated = results()
    assert len(solved) == 1
    for module in (qeq, phicalc.potential):
        monkeypatch.setattr(module, "DENSE_ATOMS", 1000)
    dense = results()
    assert len(solved) == 1
    assert np.abs(iterated["charges"] - dense["charges"]).max() < 1e-5
    assert np.abs(iterated["forces"] - dense["forces"]).max() < accuracy
    assert np.ptp(dense["charges"]) > 0.1


def test_charges_are_iterated_from_the_last_ones(realistic, monkeypatch):
    monkeypatch.setattr(qeq, "DENSE_ATOMS", 0)
    solved = noted_solvers(monkeypatch)
    calc = field_calculator(realistic["qeq"])
    atoms = water_box(8)
    calc.get_forces(atoms)
    atoms.positions[0, 0] += 1e-6
    calc.get_forces(atoms)
    atoms.pbc = False  # other axes, other charges
    calc.get_forces(atoms)
    calc.get_forces(water())
    calc.reset()
    calc.get_forces(water())
    cold, warm, opened, other, again = (solver.iterations[0] for solver in solved)
    assert warm < 0.7 * cold
    assert opened > warm
    assert other == again


# --- bad input gives no number -------------------------------------------------------------------


def test_unknown_elements_are_named(calc):
    with pytest.raises(CalculatorSetupError, match=r"elements C, N in .*this model knows H, O"):
        calc.get_potential_energy(molecule("CH3NO2"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["positions", "cell"])
def test_values_that_are_not_finite(calc, where, value):
    atoms = crystal()
    if where == "positions":
        atoms.positions[1, 1] = value
    else:
        atoms.cell[1, 1] = value
    with pytest.raises(InputError, match=where[:-1]):
        calc.get_potential_energy(atoms)


def test_coincident_atoms_are_named(calc):
    atoms = water() + Atoms("O", positions=water().positions[2:] + 0.01)
    with pytest.raises(InputError, match=r"atoms 2 \(H\) and 3 \(O\) are 0\.0173 Å apart"):
        calc.get_potential_energy(atoms)
    atoms.positions[3] = atoms.positions[2]
    with pytest.raises(InputError, match=r"are 0 Å apart"):
        calc.get_potential_energy(atoms)


def test_coincidence_across_the_boundary(calc):
    atoms = Atoms("OH", positions=[[0.02, 1, 1], [3.98, 1, 1]], cell=[4, 4, 4])
    assert np.isfinite(calc.get_potential_energy(atoms))
    atoms.pbc = True
    with pytest.raises(InputError, match=r"0 \(O\) and 1 \(H\) \(a periodic image\) are 0\.04 Å"):
        calc.get_potential_energy(atoms)


@pytest.mark.parametrize("cell", [[0, 0, 0], [3, 3, 0], [[1, 1, 0], [2, 2, 0], [0, 0, 3]]])
def test_periodic_cell_without_volume(calc, cell):
    atoms = water()
    atoms.pbc = True
    atoms.cell[:] = np.diag(cell) if np.ndim(cell) == 1 else cell
    with pytest.raises(InputError, match="volume|cell"):
        calc.get_potential_energy(atoms)


@pytest.mark.parametrize("pbc", [[True, False, False], [True, True, False]])
def test_partly_periodic_structures_with_electrostatics(calc, pbc):
    atoms = crystal()
    atoms.pbc = pbc
    atoms.calc = calc
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    open_axis = pbc.index(False)
    atoms.positions[:, open_axis] += 100.0
    atoms.cell[open_axis] *= 3.0  # an open axis has no cell
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-6)
    with pytest.raises(PropertyNotImplementedError, match="stress"):
        atoms.get_stress()


@pytest.mark.parametrize("head", ["qeq", "latent"])
@pytest.mark.parametrize("pbc", [[True, False, False], [True, False, True]])
def test_wires_and_slabs_fulfil_the_contract(realistic, pbc, head):
    calc = field_calculator(realistic[head])
    atoms = crystal()
    atoms.pbc = pbc
    for check in CONTRACT:
        check(from_calculator(calc), atoms, tolerance=1e-6)
    forces = calc.get_forces(atoms)
    repeated = atoms.repeat(np.where(pbc, 2, 1))
    copies = len(repeated) // len(atoms)
    energy = copies * calc.get_potential_energy(atoms)
    assert calc.get_potential_energy(repeated) == pytest.approx(energy, abs=1e-6)
    assert calc.get_forces(repeated) == pytest.approx(np.tile(forces, (copies, 1)), abs=1e-6)


@pytest.mark.parametrize("charge", [float("nan"), float("inf"), "1", None, [1.0], True])
def test_total_charge_that_is_no_number(calc, charge):
    atoms = water()
    atoms.calc = calc
    atoms.get_potential_energy()
    atoms.info["charge"] = charge
    assert calc.calculation_required(atoms, ["energy"])
    with pytest.raises(InputError, match=r'atoms\.info\["charge"\] must be one finite number'):
        atoms.get_potential_energy()


def test_charge_outside_the_trained_range_warns_once(model_folder):
    calc = PhiCalculator(model_folder, device="cpu")
    atoms = water()
    atoms.calc = calc
    atoms.info["charge"] = 1
    atoms.get_potential_energy()
    atoms.info["charge"] = 2
    with pytest.warns(UserWarning, match=r"total charge 2 e: model 'tiny'.*from -1 to 1 e"):
        atoms.get_potential_energy()
    atoms.positions[0, 0] += 0.01
    atoms.get_potential_energy()  # a second warning would be an error here
    assert calc.energy_terms


def test_charge_that_the_model_cannot_see_warns(potentials):
    calc = PhiCalculator(potentials["none"], device="cpu", total_charge=1)
    with pytest.warns(UserWarning, match="has no charges"):
        calc.get_potential_energy(water())


def test_results_that_are_not_finite(potentials):
    potential = deepcopy(potentials["qeq"])
    with torch.no_grad():
        for parameter in potential.readout.parameters():
            parameter.fill_(torch.nan)
    calc = PhiCalculator(potential, device="cpu")
    with pytest.raises(CalculationFailed, match="energies, energy, forces.* of H2O not finite"):
        calc.get_potential_energy(water())
    assert calc.results == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("tried to allocate"), "out of memory: use a smaller"),
        (torch.linalg.LinAlgError("singular"), "charge equilibration failed"),
    ],
)
def test_failures_of_the_machine(calc, monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(phicalc.compiled.predictor, "predict", fail)
    with pytest.raises(CalculationFailed, match=message):
        calc.get_potential_energy(water())


# --- corner cases of structures ------------------------------------------------------------------


@pytest.mark.parametrize("head", ["none", "qeq"])
@pytest.mark.parametrize("pbc", [False, True])
def test_no_atoms_and_one_atom(potentials, head, pbc):
    calc = PhiCalculator(potentials[head], device="cpu", dtype="float64")
    nothing = Atoms(cell=[5, 5, 5], pbc=pbc)
    nothing.calc = calc
    assert nothing.get_potential_energy() == 0
    assert nothing.get_forces().shape == (0, 3)
    lone = Atoms("O", cell=[8, 8, 8], pbc=pbc)
    lone.calc = calc
    assert lone.get_potential_energy() < -2000
    assert lone.get_forces() == pytest.approx(np.zeros((1, 3)), abs=1e-12)
    if pbc:
        assert np.array_equal(nothing.get_stress(), np.zeros(6))
        assert np.isfinite(lone.get_stress()).all()
    if head == "qeq" and not pbc:
        assert np.array_equal(nothing.get_dipole_moment(), np.zeros(3))


def test_charge_on_no_atoms_is_refused(calc):
    with pytest.raises(InputError, match="no atoms"):
        calc.get_potential_energy(Atoms(info={"charge": 1}))


def test_a_molecule_does_not_see_its_cell(calc):
    expected = calc.get_potential_energy(water())
    boxed = water()
    boxed.cell[:] = np.eye(3)
    assert calc.get_potential_energy(boxed) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_the_structure_lies_does_not_matter(potentials, dtype):
    tolerance = {"float32": 2e-5, "float64": 1e-10}[dtype]
    calc = PhiCalculator(potentials["qeq"], device="cpu", dtype=dtype)
    for make in (water, crystal):
        here, far = make(), make()
        far.translate([500.0, -500.0, 250.0])
        if here.pbc.any():
            far.positions[0] += far.cell[1] * 3 - far.cell[2]
        here_forces = calc.get_forces(here)
        error = np.abs(calc.get_forces(far) - here_forces).max()
        assert error <= tolerance * np.abs(here_forces).max()
        energies = [calc.get_potential_energy(atoms) for atoms in (here, far)]
        assert energies[0] == pytest.approx(energies[1], abs=10 * tolerance)


def test_left_handed_cell(calc):
    right, left = crystal(), crystal()
    left.set_cell(left.cell[[1, 0, 2]])
    assert left.cell.handedness == -right.cell.handedness
    for name in ("energy", "forces", "stress", "charges"):
        value = calc.get_property(name, right)
        assert calc.get_property(name, left) == pytest.approx(value, abs=1e-9)


def test_rotated_structure(calc):
    atoms, turned = crystal(), crystal()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    energy, forces = calc.get_potential_energy(atoms), calc.get_forces(atoms)
    probe = Atoms("H3", positions=np.eye(3))
    probe.rotate(40, (1, 2, 3))
    assert calc.get_potential_energy(turned) == pytest.approx(energy, abs=1e-9)
    assert calc.get_forces(turned) == pytest.approx(forces @ probe.positions, abs=1e-9)


def test_arrays_that_are_not_contiguous(calc):
    atoms = crystal()
    expected = calc.get_forces(atoms)
    atoms.arrays["positions"] = np.asfortranarray(atoms.positions)
    atoms.cell.array = np.asfortranarray(atoms.cell.array)
    calc.reset()
    assert np.array_equal(calc.get_forces(atoms), expected)


# --- copies, precisions, ASE's tools -------------------------------------------------------------


@pytest.mark.parametrize("copy", [deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_copies_are_complete_and_independent(calc, copy):
    atoms = water()
    energy = calc.get_potential_energy(atoms)
    other = copy(calc)
    assert other.results["energy"] == energy
    assert not other.calculation_required(atoms, ["energy"])
    other.set(dtype="float32")
    assert other.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-3)
    assert calc.get_potential_energy(atoms) == energy
    assert {p.dtype for p in calc.potential.parameters()} == {torch.float64}


def test_calculators_of_both_precisions_interleaved(potentials):
    atoms, energies = water(), {}
    calculators = {
        dtype: PhiCalculator(potentials["qeq"], device="cpu", dtype=dtype)
        for dtype in ("float32", "float64")
    }
    for _ in range(2):
        for dtype, calc in calculators.items():
            calc.reset()
            energies.setdefault(dtype, set()).add(calc.get_potential_energy(atoms))
            assert torch.get_default_dtype() == torch.float32
    assert [len(values) for values in energies.values()] == [1, 1]


def test_default_dtype_neither_matters_nor_changes(model_folder):
    expected = PhiCalculator(model_folder, device="cpu").get_potential_energy(water())
    torch.set_default_dtype(torch.float64)
    try:
        calc = PhiCalculator(model_folder, device="cpu")
        assert calc.get_potential_energy(water()) == pytest.approx(expected, abs=1e-9)
        with pytest.raises(CalculatorSetupError):
            calc.get_potential_energy(molecule("CH4"))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(CalculatorSetupError):
        calc.get_potential_energy(molecule("CH4"))
    with pytest.raises(InputError):
        PhiCalculator(model_folder, dtype="float16")
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "json"])
def test_results_survive_files(calc, tmp_path, suffix):
    atoms = crystal()
    atoms.calc = calc
    atoms.info["charge"] = 1
    forces, stress = atoms.get_forces(), atoms.get_stress()
    path = tmp_path / f"frame.{suffix}"
    ase.io.write(path, atoms)
    read = ase.io.read(path)
    assert read.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
    assert read.get_forces() == pytest.approx(forces, abs=1e-7)
    assert read.get_stress() == pytest.approx(stress, abs=1e-7)
    assert read.get_charges() == pytest.approx(atoms.get_charges(), abs=1e-7)


def test_exported_properties_are_those_ase_knows(calc):
    atoms = crystal()
    atoms.calc = calc
    atoms.get_stress()
    exported = calc.export_properties()
    assert set(exported) == set(calc.results) | {"natoms"}
    assert atoms.get_properties(["energy", "forces"])["energy"] == calc.results["energy"]


def test_inside_other_calculators(calc, potentials):
    atoms = crystal()
    energy, stress = calc.get_potential_energy(atoms), calc.get_stress(atoms)
    second = PhiCalculator(potentials["none"], device="cpu", dtype="float64")
    total = SumCalculator([calc, second])
    expected = energy + second.get_potential_energy(atoms)
    assert total.get_potential_energy(atoms) == pytest.approx(expected, abs=1e-9)
    expected = stress + second.get_stress(atoms)
    assert total.get_stress(atoms) == pytest.approx(expected, abs=1e-12)
    logged = LoggingCalculator(calc)
    assert logged.get_potential_energy(atoms) == energy


def test_dynamics_and_relaxation_run(calc):
    atoms = crystal()
    atoms.calc = calc
    with NoseHooverChainNVT(atoms, timestep=0.2 * fs, temperature_K=50, tdamp=20 * fs) as dynamics:
        dynamics.run(3)
        assert np.isfinite(dynamics.get_conserved_energy())
    with BFGS(FrechetCellFilter(atoms), logfile=None, maxstep=0.02) as optimizer:
        before = atoms.get_potential_energy()
        optimizer.run(fmax=1e-3, steps=5)
    assert atoms.get_potential_energy() < before


def test_ase_can_find_the_class_by_name(potentials, monkeypatch):
    monkeypatch.setattr(ase_calculator, "external_calculators", {})
    monkeypatch.setattr(ase_calculator, "names", list(ase_calculator.names))
    ase_calculator.register_calculator_class("phicalc", PhiCalculator)
    found = ase_calculator.get_calculator_class("phicalc")
    assert found(model=potentials["none"], device="cpu").get_potential_energy(water()) < -2000


def test_no_warnings_in_plain_use(potentials):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in STRUCTURES.values():
            PhiCalculator(potentials["qeq"], device="cpu").get_forces(make())


def test_neither_a_home_nor_a_user_is_needed(model_folder):
    """As in containers that run under an unknown number of a user."""
    code = f"""
import os, pwd
from ase.build import molecule  # ASE itself needs a home
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {{uid}}")
pwd.getpwuid = unknown
del os.environ["HOME"]
from phicalc import PhiCalculator
for compile in (False, "auto"):
    calc = PhiCalculator({str(model_folder)!r}, device="cpu", compile=compile)
    assert calc.get_potential_energy(molecule("H2O"))
"""
    missing = ("XDG_CACHE_HOME", "PHICALC_CACHE", "USER", "LOGNAME")
    environment = {name: value for name, value in os.environ.items() if name not in missing}
    environment["HOME"] = str(model_folder)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_coordinates_of_any_byte_order(calc):
    atoms, swapped = water(), water()
    swapped.arrays["positions"] = atoms.positions.astype(">f8")
    assert calc.get_potential_energy(swapped) == calc.get_potential_energy(atoms)


def test_positions_that_are_text_are_refused(calc):
    atoms = water()
    calc.get_potential_energy(atoms)
    atoms.arrays["positions"] = atoms.positions.astype(str)
    with pytest.raises(InputError, match="positions must be real numbers"):
        calc.get_potential_energy(atoms)


@pytest.mark.parametrize(
    "given", [{"device": None}, {"force_accuracy": "high"}, {"force_accuracy": [1e-3]}]
)
def test_wrong_arguments_are_named(potentials, given, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as with users
    with pytest.raises(InputError, match=f"{next(iter(given))} must be"):
        PhiCalculator(potentials["none"], **given)
