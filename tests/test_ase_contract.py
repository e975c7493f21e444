"""The checks of `phicalc.testing` on sound calculators, and a broken one for each of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.potential import Potential
from phicalc.structures import water_box
from phicalc.testing import ASE_CONTRACT, CONTRACT, from_calculator, results, state
from phicalc.testing.generators import structures_of

from .tiny import charged_potential

NEON = structures_of(["Ar", "Ne"])
COPPER = structures_of(["Cu", "Al"])
SMOOTH = partial(LennardJones, sigma=2.3, epsilon=0.3, rc=7.0, smooth=True)


def water(*, periodic: bool, charge: float = 0.0) -> Atoms:
    atoms = water_box(2, density=0.5, seed=3)
    atoms.rattle(0.02, seed=4)
    atoms.pbc = periodic
    if not periodic:
        atoms.cell = None
    if charge:
        atoms.info["charge"] = charge
    return atoms


@pytest.fixture(scope="module")
def potential() -> Potential:
    return charged_potential()


@pytest.fixture
def ours(potential: Potential) -> Callable[..., PhiCalculator]:
    return partial(PhiCalculator, potential, dtype="float64", compile=False)


def name(check: Callable) -> str:
    return check.__name__


@pytest.mark.parametrize("check", ASE_CONTRACT, ids=name)
@pytest.mark.parametrize("kind", NEON)
def test_calculators_of_ase_fulfil_the_contract(check, kind):
    check(EMT, COPPER[kind], tolerance=1e-10)
    check(SMOOTH, NEON[kind], tolerance=1e-10)


@pytest.mark.parametrize("check", ASE_CONTRACT, ids=name)
@pytest.mark.parametrize("charge", [0.0, 1.0])
@pytest.mark.parametrize("periodic", [False, True])
def test_ours_fulfils_the_contract(check, periodic, charge, ours):
    check(ours, water(periodic=periodic, charge=charge), tolerance=1e-7)


NUMBERS = ("check_rotation", "check_forces", "check_stress", "check_total_charge")


# Stress was not trained, but is a derivative; one check squeezes a molecule.
@pytest.mark.filterwarnings("ignore:stress. model .water", "ignore:the force on atom 1")
@pytest.mark.filterwarnings("ignore:atoms 0 .O. and 1 .H. are 0.68")
@pytest.mark.parametrize(
    ("model", "check"),
    [("water-small", check) for check in (*CONTRACT, *ASE_CONTRACT)]
    # The larger one differs in its numbers alone.
    + [("water", check) for check in CONTRACT if check.__name__ in NUMBERS],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.filterwarnings("ignore:total charge")
@pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")  # distorted; stress
def test_shipped_models_fulfil_both_contracts(model, check):
    make = partial(PhiCalculator, model, dtype="float64", force_accuracy=1e-9, compile=False)
    for periodic in (False, True):
        atoms = water(periodic=periodic)
        if check in CONTRACT:
            check(from_calculator(make()), atoms, tolerance=1e-6)
        else:
            check(make, atoms, tolerance=1e-6)


class Changed(LennardJones):
    """Lennard-Jones whose results are tampered with; subclasses say how."""

    def __init__(self, **settings: Any):
        super().__init__(sigma=2.3, epsilon=0.3, rc=7.0, smooth=True, **settings)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.change(atoms, self.results)

    def change(self, atoms: Atoms, results: dict[str, Any]) -> None:
        """Spoil the results, or something else."""


def changed(change: Callable[[Calculator, Atoms, dict[str, Any]], Any]) -> type[Calculator]:
    """Class with results that `change` has spoiled."""
    return type("Spoiled", (Changed,), {"change": change})


class Unimplemented(Changed):
    implemented_properties = ["energy", "forces", "stress"]


class OtherError(Changed):
    def get_property(self, name, atoms=None, allow_calculation=True):
        if name not in self.implemented_properties:
            raise KeyError(name)
        return super().get_property(name, atoms, allow_calculation)


class NoCache(Changed):
    def check_state(self, atoms, tol=1e-15):
        return all_changes


class Eager(Changed):
    def get_property(self, name, atoms=None, allow_calculation=True):
        return super().get_property(name, atoms, True)


class Stale(Changed):
    def check_state(self, atoms, tol=1e-15):
        return [change for change in super().check_state(atoms, tol) if change != "cell"]


class ByReference(Changed):
    def get_property(self, name, atoms=None, allow_calculation=True):
        value = super().get_property(name, atoms, allow_calculation)
        return self.results[name] if isinstance(value, np.ndarray) else value


class Shared(Changed):
    def __deepcopy__(self, memo):
        return self


class Leaky(Changed):
    def __init__(self):
        super().__init__()
        self.implemented_properties.append("charges")

    implemented_properties = list(LennardJones.implemented_properties)


class ForgetsInfo(PhiCalculator):
    def check_state(self, atoms, tol=1e-15):
        return Calculator.check_state(self, atoms, tol)


class Dipole(PhiCalculator):
    """Dipoles times a factor."""

    factor = 1.0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if "dipole" in self.results:
            self.results["dipole"] = self.results["dipole"] * self.factor


class Debye(Dipole):
    factor = 1 / units.Debye


class Backwards(Dipole):
    factor = -1.0


class TooLarge(Dipole):
    factor = 1.1


def write_born_charges(calc: Calculator, atoms: Atoms, found: dict[str, Any]) -> None:
    calc.implemented_properties = [*LennardJones.implemented_properties, "born_effective_charges"]
    found["born_effective_charges"] = np.zeros((len(atoms), 3, 3))


def remember(calc: Calculator, atoms: Atoms, found: dict[str, Any]) -> None:
    calc.calls = getattr(calc, "calls", 0) + 1
    found["energy"] += 1e-3 * calc.calls


def misread(calc: Calculator, atoms: Atoms, found: dict[str, Any]) -> None:
    """Take rows for columns, as compiled code does that was promised contiguous arrays."""
    in_memory = atoms.arrays["positions"].ravel(order="K").reshape(-1, 3)
    found["energy"] += float(in_memory @ [1, 2, 3] @ np.arange(len(atoms)))


def flatten(calc: Calculator, atoms: Atoms, found: dict[str, Any]) -> None:
    found["forces"] = found["forces"].squeeze()


def report_stress(calc: Calculator, atoms: Atoms, found: dict[str, Any]) -> None:
    found.setdefault("stress", np.zeros(6))


def mark(calc: Calculator, atoms: Atoms, found: dict[str, Any]) -> None:
    atoms.info["seen"] = True


BROKEN: list[tuple[Callable, type[Calculator]]] = [
    (results.check_types, changed(lambda c, a, r: r.update(forces=np.float32(r["forces"])))),
    (results.check_types, changed(lambda c, a, r: r.update(energy=np.array([r["energy"]])))),
    (results.check_types, changed(lambda c, a, r: r["forces"].fill(np.nan))),
    (results.check_names, changed(lambda c, a, r: r.update(hessian=1.0))),
    (results.check_free_energy, Unimplemented),
    (results.check_sums, changed(lambda c, a, r: r.update(energies=2 * r["energies"]))),
    (results.check_missing_properties, OtherError),
    (results.check_no_stress_of_molecules, changed(report_stress)),
    (results.check_one_atom, changed(flatten)),
    (results.check_dipole, Debye),
    (results.check_dipole, Backwards),
    (results.check_field, TooLarge),
    (results.check_files, changed(write_born_charges)),
    (state.check_cache, NoCache),
    (state.check_no_calculation, Eager),
    (state.check_changes, Stale),
    (state.check_info, ForgetsInfo),
    (state.check_results_are_copies, ByReference),
    (state.check_atoms_are_untouched, changed(mark)),
    (state.check_process_is_untouched, changed(lambda c, a, r: np.seterr(all="ignore"))),
    (state.check_deepcopy, Shared),
    (state.check_class_is_untouched, Leaky),
    (state.check_several_structures, changed(remember)),
    (state.check_array_layout, changed(misread)),
]


@pytest.mark.parametrize(("check", "broken"), BROKEN, ids=lambda value: value.__name__)
def test_each_check_catches_what_it_is_for(check, broken, potential):
    make, atoms = broken, NEON["crystal"]
    if issubclass(broken, PhiCalculator):
        make = partial(broken, potential, dtype="float64", compile=False)
        atoms = water(periodic=False)
    with np.errstate(), pytest.raises(AssertionError):
        check(make, atoms)


def test_every_check_has_something_broken():
    checks = {v for m in (results, state) for k, v in vars(m).items() if k.startswith("check_")}
    assert checks == set(ASE_CONTRACT) == {check for check, _ in BROKEN}


VOIGT_OF_OTHERS = [0, 1, 2, 5, 4, 3]
WRONG_NUMBERS = {
    "forces of the other sign": ("forces", lambda c, a, r: r["forces"].__imul__(-1)),
    "stress of the other sign": ("stress", lambda c, a, r: r["stress"].__imul__(-1)),
    "stress in GPa": ("stress", lambda c, a, r: r["stress"].__imul__(1 / units.GPa)),
    "stress in another order": (
        "stress",
        lambda c, a, r: r.update(stress=r["stress"][VOIGT_OF_OTHERS]),
    ),
    "pressure": ("stress", lambda c, a, r: r.update(stress=-r["stress"].mean() * np.ones(6))),
    "squares of numbers": ("supercell", lambda c, a, r: r.update(free_energy=float(len(a) ** 2))),
    "a first atom": (
        "permutation",
        lambda c, a, r: r.update(free_energy=r["free_energy"] + a.numbers[0]),
    ),
    "a direction": ("rotation", lambda c, a, r: r["forces"].__iadd__([0, 0, 0.1])),
}


@pytest.mark.parametrize("what", WRONG_NUMBERS)
def test_wrong_numbers_are_caught_through_ase_too(what):
    expected, change = WRONG_NUMBERS[what]
    (check,) = [check for check in CONTRACT if check.__name__ == f"check_{expected}"]
    sound, broken = from_calculator(SMOOTH()), from_calculator(changed(change)())
    check(sound, NEON["crystal"], tolerance=1e-6)
    with pytest.raises(AssertionError):
        check(broken, NEON["crystal"], tolerance=1e-3)
