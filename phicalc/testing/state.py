"""What an ASE calculator remembers, and what it must leave alone."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator

from phicalc.testing.physics import assert_close
from phicalc.testing.results import Make, compare_results, results_of, with_calculator


def _counting(calculator: Calculator) -> list[object]:
    """Make the calculator note its calculations in a list."""
    noted: list[object] = []
    calculate = calculator.calculate

    def count(*arguments: Any, **settings: Any) -> Any:
        noted.append(arguments)
        return calculate(*arguments, **settings)

    calculator.calculate = count  # type: ignore[method-assign]  # of this one instance
    return noted


def check_cache(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that asking again computes nothing, nor for an equal copy of the structure."""
    atoms = with_calculator(make, atoms)
    noted = _counting(atoms.calc)
    first = results_of(atoms)
    assert noted, "the calculator has results without a calculation"
    done = len(noted)
    twin = atoms.copy()
    twin.calc = atoms.calc
    for again in (atoms, twin):
        compare_results(results_of(again, first), first, 0.0)
    assert len(noted) == done, f"{len(noted) - done} calculations more for the same structure"


def check_no_calculation(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check ``get_property(..., allow_calculation=False)``: None, or what has been computed."""
    atoms = with_calculator(make, atoms)
    noted = _counting(atoms.calc)
    value = atoms.calc.get_property("energy", atoms, allow_calculation=False)
    assert value is None, f"allow_calculation=False gives {value} at first"
    assert not noted, "allow_calculation=False calculates"
    energy = atoms.get_potential_energy()
    atoms.positions[0, 0] += 0.1
    value = atoms.calc.get_property("energy", atoms, allow_calculation=False)
    assert value is None, f"allow_calculation=False gives {value} ({energy} was that of before)"


def _change_positions(atoms: Atoms) -> None:
    atoms.positions[0, 1] += 0.05


def _change_cell(atoms: Atoms) -> None:
    atoms.cell[0, 0] *= 1.01


def _change_pbc(atoms: Atoms) -> None:
    if atoms.cell.rank == 3:
        atoms.pbc = not atoms.pbc.all()


def _change_numbers(atoms: Atoms) -> None:
    atoms.numbers[:] = np.roll(atoms.numbers, 1)


def _change_length(atoms: Atoms) -> None:
    del atoms[-1]


_CHANGES: tuple[Callable[[Atoms], None], ...] = (
    _change_positions,
    _change_cell,
    _change_pbc,
    _change_numbers,
    _change_length,
)


def check_changes(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that changes in place are noticed: positions, cell, pbc, elements, number of atoms.

    Raises
    ------
    AssertionError
        After the first change that is missed.
    """
    for change in _CHANGES:
        changed = atoms.copy()
        change(changed)
        try:
            expected = results_of(with_calculator(make, changed))
        except Exception:  # not a structure for this calculator
            continue
        living = with_calculator(make, atoms)
        results_of(living)
        change(living)
        try:
            compare_results(results_of(living), expected, tolerance)
        except AssertionError as error:
            what = change.__name__.removeprefix("_change_")
            raise AssertionError(f"after a change of {what}: {error}") from error


def check_info(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that a change of ``info["charge"]`` is noticed, if it means anything at all."""
    charge = atoms.info.get("charge", 0)
    charged = atoms.copy()
    charged.info["charge"] = charge + 1
    living = with_calculator(make, atoms)
    before = living.get_potential_energy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the charge may be a strange one
            expected = with_calculator(make, charged).get_potential_energy()
            if abs(expected - before) <= tolerance * max(1.0, abs(before)):
                return
            living.info["charge"] = charge + 1
            found = living.get_potential_energy()
    except Exception:  # charges are refused, which is no matter of the cache
        return
    assert_close('energy after a change of info["charge"]', found, expected, tolerance)


def check_results_are_copies(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that a caller may modify what was returned."""
    atoms = with_calculator(make, atoms)
    expected = deepcopy(results_of(atoms))
    for value in results_of(atoms, expected).values():
        if isinstance(value, np.ndarray):
            value.fill(-123.0)
    compare_results(results_of(atoms, expected), expected, 0.0)


def check_atoms_are_untouched(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that a calculation changes nothing in the structure."""
    used = with_calculator(make, atoms)
    calculator = used.calc
    results_of(used)
    assert used.calc is calculator, "atoms.calc is another object"
    assert set(used.arrays) == set(atoms.arrays), f"arrays are now {sorted(used.arrays)}"
    for name, before in atoms.arrays.items():
        assert np.array_equal(used.arrays[name], before), f"atoms.arrays[{name!r}] has changed"
    assert np.array_equal(used.cell, atoms.cell), "the cell has changed"
    assert np.array_equal(used.pbc, atoms.pbc), "pbc has changed"
    assert set(used.info) == set(atoms.info), f"info is now {sorted(used.info)}"
    assert not used.constraints, "there are constraints now"


def _process_state() -> Iterator[tuple[str, object]]:
    """Yield what belongs to the whole process, by name."""
    yield "the working directory", os.getcwd()
    yield "numpy's error handling", np.geterr()
    yield "numpy's random state", str(np.random.get_state())  # noqa: NPY002  # it is the global one
    yield "warnings filters", list(warnings.filters)
    torch = sys.modules.get("torch")
    if torch is not None:
        yield "torch's default dtype", torch.get_default_dtype()
        yield "torch's random state", torch.initial_seed()
        yield "torch's gradient mode", torch.is_grad_enabled()


def check_process_is_untouched(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that nothing of the process changes, after errors of the calculator either."""
    before = dict(_process_state())
    for positions in (atoms.positions, np.full_like(atoms.positions, np.nan)):
        used = with_calculator(make, atoms)
        used.positions = positions
        with warnings.catch_warnings(), suppress(Exception):  # of positions that are no numbers
            warnings.simplefilter("ignore")
            results_of(used)
    after = dict(_process_state())
    changed = [name for name in before if after[name] != before[name]]
    assert not changed, f"the calculator has changed {', '.join(changed)}"


def check_deepcopy(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that a deep copy has the same results and a life of its own."""
    atoms = with_calculator(make, atoms)
    expected = results_of(atoms)
    copied = atoms.copy()
    copied.calc = deepcopy(atoms.calc)
    compare_results(results_of(copied), expected, tolerance)
    copied.positions[0, 0] += 0.1
    results_of(copied)
    noted = _counting(atoms.calc)
    compare_results(results_of(atoms, expected), expected, 0.0)
    assert not noted, "the copy has taken the results of its original away"


def check_class_is_untouched(make: Make, atoms: Atoms, tolerance: float = 0.0) -> None:
    """Check that ``implemented_properties`` are not added to a list that others share."""
    others = {kind: list(kind.implemented_properties) for kind in _families(make())}
    calculator = make()
    names = list(calculator.implemented_properties)
    assert len(names) == len(set(names)), f"implemented_properties repeat names: {names}"
    for kind, before in others.items():
        now = list(kind.implemented_properties)
        assert now == before, f"{kind.__name__}.implemented_properties is now {now}"


def _families(calculator: Calculator) -> list[Any]:
    """Classes of a calculator that have a list of properties."""
    kinds = [kind for kind in type(calculator).__mro__ if hasattr(kind, "implemented_properties")]
    return [*kinds, BaseCalculator]


def check_several_structures(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that one calculator serves several structures by turns, and forgets the others."""
    expected = results_of(with_calculator(make, atoms))
    one, other, part = with_calculator(make, atoms), atoms.copy(), atoms[1:]
    other.rattle(0.1, seed=1)
    for _ in range(2):
        for neighbor in (other, part):
            neighbor.calc = one.calc
            neighbor.get_forces()
            compare_results(results_of(one), expected, tolerance)


def check_array_layout(make: Make, atoms: Atoms, tolerance: float = 1e-10) -> None:
    """Check that the order of positions in memory has no meaning."""
    expected = results_of(with_calculator(make, atoms))
    laid = with_calculator(make, atoms)
    laid.arrays["positions"] = np.asfortranarray(atoms.positions)
    compare_results(results_of(laid), expected, tolerance)
