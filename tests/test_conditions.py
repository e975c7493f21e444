"""External conditions: read once, refused with one clear line if they make no sense."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculatorSetupError, InputError

from phicalc import PhiCalculator
from phicalc.graph import Conditions, ConditionsError, from_ase, read_conditions
from phicalc.inference.conditions import conditions_of
from phicalc.potential import build_potential

from .tiny import flat_config

NAN = float("nan")
SETTINGS = {"elements": ("H", "O"), "cutoff": 3.0, "channels": 4, "l_max": 1, "layers": 1}


def calculator(**settings: object) -> PhiCalculator:
    return PhiCalculator(build_potential(flat_config(**{**SETTINGS, **settings}), seed=1))


CHARGES = {
    "text": "one", "digits": "1", "none": None, "list": [1.0], "nan": NAN, "infinity": np.inf,
    "truth": True, "complex": 1j, "ragged": [[1], [1, 2]], "dictionary": {"e": 1}, "bytes": b"1",
    "array": np.zeros(3),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHARGES)
def test_charges_that_are_no_numbers(kind: str) -> None:
    atoms = molecule("H2O")
    atoms.info["charge"] = CHARGES[kind]
    with pytest.raises(ConditionsError, match=r'info\["charge"\] must be one finite number'):
        calculator().get_potential_energy(atoms)
    with pytest.raises(ValueError, match=r'info\["charge"\] must be one finite number'):
        from_ase(atoms, 3.0)


IMPOSSIBLE = {
    "charge": ({"charge": 1e30}, "a charge of 1e.30 e on H2O, whose neutral atoms have 10 electr"),
    "anion": ({"charge": -11}, "a charge of -11 e"),
    "fragments": (
        {"fragment_charges": [40.0, -40.0], "fragments": [0, 0, 1]}, "a charge of 40 e"
    ),
    "field": ({"external_field": [0, 0, 1e6]}, r"external_field of 1e\+06 V/Å: at most 51.4 V/Å"),
    "reservoir": ({"electrode_potential": -1e9}, r"a reservoir at 1e\+09 V"),
    "potentials": (
        {"fragment_charges": [0.0, NAN], "fragment_potentials": [NAN, 500.0],
         "fragments": [0, 0, 1]}, "a reservoir at 500 V"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_conditions_beyond_all_sense(kind: str) -> None:
    info, reason = IMPOSSIBLE[kind]
    atoms = molecule("H2O")
    for name, value in info.items():
        if name == "fragments":
            atoms.set_array(name, np.array(value))
        else:
            atoms.info[name] = value
    with pytest.raises(ConditionsError, match=reason):
        calculator().get_potential_energy(atoms)


def test_impossible_charges_of_the_constructor() -> None:
    with pytest.raises(ConditionsError, match="correct the total charge"):
        PhiCalculator(calculator().potential, total_charge=100).get_potential_energy(
            molecule("H2O")
        )
    assert calculator().get_charges(Atoms("H", info={"charge": 1})).sum() == pytest.approx(1)


NUMBERS = {
    "two columns": np.zeros((3, 2), dtype=int),
    "text": np.array(["a", "b", "c"]),
    "nan": np.array([0, 1, NAN]),
    "fractions": np.array([0.0, 0.5, 1.0]),
    "floats": np.array([0.0, 1.0, 1.0]),
    "too few": np.array([0, 1]),
    "too many": np.array([0, 1, 1, 1]),
    "truth": np.array([False, True, True]),
    "objects": np.array([0, None, 1], dtype=object),
    "one value": np.array(1),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_fragments_that_are_no_numbers_of_fragments(kind: str) -> None:
    atoms = molecule("H2O")
    atoms.arrays["fragments"] = NUMBERS[kind]  # ASE checks nothing here
    atoms.info["fragment_charges"] = [0.1, -0.1]
    with pytest.raises(ConditionsError, match=r"must say to which of the 2 fragments .* got an ar"):
        calculator().get_potential_energy(atoms)


PER_FRAGMENT = {
    "two columns": [[0.1, 0.2], [0.3, 0.4]], "text": ["0.1", "-0.1"], "nothing": [],
    "ragged": [[0.1], [0.2, 0.3]], "infinite": [np.inf, 0.0], "objects": [None, {}],
    "truth": [True, False], "complex": [1j, 0],
}  # fmt: skip


@pytest.mark.parametrize("key", ["fragment_charges", "fragment_potentials"])
@pytest.mark.parametrize("kind", PER_FRAGMENT)
def test_values_of_fragments_that_are_no_numbers(kind: str, key: str) -> None:
    atoms = molecule("H2O")
    atoms.set_array("fragments", np.array([0, 1, 1]))
    atoms.info[key] = PER_FRAGMENT[kind]
    with pytest.raises(ConditionsError, match=rf'info\["{key}"\] must be one number per fragment'):
        calculator().get_potential_energy(atoms)


@pytest.mark.parametrize("numbers", [
    np.array([8.0, 1.0, 1.0]), np.array([8.5, 1, 1]), np.array(["O", "H", "H"]), np.ones((3, 2)),
], ids=["floats", "fractions", "text", "columns"])  # fmt: skip
def test_atomic_numbers_that_are_no_integers(numbers: np.ndarray) -> None:
    atoms = molecule("H2O")
    atoms.arrays["numbers"] = numbers
    with pytest.raises(InputError, match="must be integers"):
        calculator().get_potential_energy(atoms)


def test_every_error_is_a_value_error_and_one_of_ase() -> None:
    assert issubclass(ConditionsError, ValueError)
    assert issubclass(ConditionsError, InputError)


def test_conditions_are_read_by_one_function() -> None:
    """What the calculator uses is what the graph holds."""
    atoms = molecule("H2O")
    atoms.info.update(charge=0, external_field=np.array([0.0, 0.1, 0.2]))
    conditions = read_conditions(atoms)
    assert conditions == Conditions(0.0, (0.0, 0.1, 0.2))
    unset = dict.fromkeys(("total_charge", "external_field", "electrode_potential"))
    assert conditions_of(atoms, unset, calculator().potential) == conditions
    graph = from_ase(atoms, 3.0, conditions=conditions)
    assert graph.external_field.tolist() == [[0.0, 0.1, 0.2]]
    assert from_ase(atoms, 3.0).external_field is None  # the charge alone, as in training
    graph = from_ase(atoms, 3.0, conditions=Conditions(2.0))
    assert graph.total_charge.tolist() == [2.0]


def test_conditions_need_charges_to_act_on() -> None:
    atoms = molecule("H2O")
    atoms.info["external_field"] = [0, 0, 0.1]
    with pytest.raises(CalculatorSetupError, match="acts on charges"):
        calculator(head="none").get_potential_energy(atoms)
