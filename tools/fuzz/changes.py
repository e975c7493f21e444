"""What can be odd about a structure and the conditions around it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLength, FixCartesian


class Subject(NamedTuple):
    """A structure in the making."""

    atoms: Atoms
    parameters: dict[str, Any]
    """Of the calculator."""
    rng: np.random.Generator
    must_refuse: list[str]
    """What makes a result without a warning wrong."""

    def pick(self, *choices: Any) -> Any:
        """One of the choices."""
        return choices[self.rng.integers(len(choices))]


def _change_elements(s: Subject) -> str:
    if not len(s.atoms):
        return ""
    number = int(s.pick(0, 1, 2, 6, 8, 11, 26, 92, 118, 119, -1, 200))
    s.atoms.numbers[s.rng.integers(len(s.atoms))] = number
    if not 0 < number < 119:
        s.must_refuse.append(f"atomic number {number}")
    return f"atomic number {number}"


def _change_pbc(s: Subject) -> str:
    s.atoms.pbc = s.rng.random(3) < 0.5
    return ""


def _change_cell(s: Subject) -> str:
    kind, cell = CELLS[s.rng.integers(len(CELLS))](s)
    s.atoms.cell.array[:] = cell
    periodic = np.array(cell, dtype=float)[s.atoms.pbc]
    flat = np.isfinite(periodic).all() and len(periodic) > np.linalg.matrix_rank(periodic)
    if not np.isfinite(periodic).all() or flat:
        s.must_refuse.append(f"{kind} cell")
    return f"{kind} cell {np.array2string(np.asarray(cell), precision=3)}"


def _skewed(s: Subject) -> np.ndarray:
    cell = np.eye(3) * s.rng.uniform(3, 8)
    cell[1, 0], cell[2, 1] = s.rng.uniform(-60, 60, size=2)
    return cell


def _degenerate(s: Subject) -> np.ndarray:
    cell = s.rng.normal(size=(3, 3)) * 5
    cell[2] = s.pick(0.0, 1.0) * cell[0]
    return cell


def _spoilt_cell(s: Subject) -> np.ndarray:
    cell = np.eye(3) * 8
    cell[s.rng.integers(3), s.rng.integers(3)] = s.pick(np.nan, np.inf, -np.inf)
    return cell


CELLS: tuple[Callable[[Subject], tuple[str, Any]], ...] = (
    lambda s: ("tiny", np.eye(3) * s.pick(1e-12, 0.05, 0.4, 1.0, 2.2)),
    lambda s: ("huge", np.eye(3) * s.pick(3e2, 1e4, 1e7, 1e15, 1e200)),
    lambda s: ("aspect", np.diag(s.rng.permutation([3.0, 8.0, s.pick(200.0, 3e3, 1e5)]))),
    lambda s: ("skewed", _skewed(s)),
    lambda s: ("left-handed", np.eye(3)[[1, 0, 2]] * 8),
    lambda s: ("negative", -np.eye(3) * 8),
    lambda s: ("rank-deficient", _degenerate(s)),
    lambda s: ("zero", np.zeros((3, 3))),
    lambda s: ("not finite", _spoilt_cell(s)),
)


def _change_position(s: Subject) -> str:
    if not len(s.atoms):
        return ""
    atom = int(s.rng.integers(len(s.atoms)))
    kind = s.pick("coincident", "overlapping", "image", "far", "farther", "nan", "inf", "negative")
    place = s.atoms.positions
    other = place[(atom + 1) % len(place)]
    values = {
        "coincident": other, "overlapping": other + 0.05 * s.rng.normal(size=3),
        "image": other + s.atoms.cell.array.sum(0), "far": other + 1e7, "farther": other + 1e15,
        "nan": np.nan, "inf": np.inf, "negative": -1e4 + other,
    }  # fmt: skip
    place[atom] = values[kind]
    if kind in ("nan", "inf") or (kind == "coincident" and len(place) > 1):
        s.must_refuse.append(f"{kind} position")
    return f"{kind} atom {atom}"


def _change_count(s: Subject) -> str:
    keep = int(s.pick(0, 0, 1))
    del s.atoms[keep:]
    return f"only {keep} atoms left"


def _change_position_type(s: Subject) -> str:
    positions = s.atoms.arrays["positions"]
    if not np.isfinite(positions).all():
        return ""  # integers would hide it
    kind = s.pick("<f4", "<f2", ">f8", ">f4", "<i8", "<i2", "fortran", "readonly", "strided",
                  "object", "text", "complex", "flat")  # fmt: skip
    makers: dict[str, Callable[[], np.ndarray]] = {
        "fortran": lambda: np.asfortranarray(positions),
        "strided": lambda: np.repeat(positions, 2, axis=0)[::2],
        "object": lambda: positions.astype(object),
        "text": lambda: positions.astype(str),
        "complex": lambda: positions + 0.1j,
        "flat": lambda: positions.ravel(),
        "readonly": positions.copy,
    }
    with np.errstate(all="ignore"):
        made = makers.get(kind, lambda: positions.astype(kind))()
    made.flags.writeable = kind != "readonly"
    s.atoms.arrays["positions"] = made
    if kind in ("text", "complex"):
        s.must_refuse.append(f"{kind} positions")
    return f"{kind} positions"


def _change_number_type(s: Subject) -> str:
    numbers = s.atoms.arrays["numbers"]
    kind = s.pick("<f8", "<i4", "<u1", ">i8", "text", "symbols", "object", "half", "readonly")
    made = {
        "text": lambda: numbers.astype(str),
        "symbols": lambda: np.full(len(numbers), "H", dtype="U2"),
        "object": lambda: numbers.astype(object),
        "half": lambda: numbers + 0.5,
        "readonly": numbers.copy,
    }.get(kind, lambda: numbers.astype(kind))()
    made.flags.writeable = kind != "readonly"
    s.atoms.arrays["numbers"] = made
    if kind in ("symbols", "half") and len(numbers):
        s.must_refuse.append(f"numbers: {kind}")
    return f"numbers: {kind}"


ODD_NUMBERS: tuple[tuple[Any, bool], ...] = (
    *((value, False) for value in (None, 0, 1, -1.0, 0.5, 7, 1e3, -1e9, True, np.float32(1),
                                   np.int64(-1), np.array(1.0), np.float16(0.5))),
    *((value, True) for value in ("1", "one", "", [1, 2], [], {"e": 1}, float("nan"), float("inf"),
                                  np.float32("nan"), 1j, np.array([1.0, 2.0]), b"1", object())),
)  # fmt: skip


def _change_charge(s: Subject) -> str:
    value, wrong = ODD_NUMBERS[s.rng.integers(len(ODD_NUMBERS))]
    if s.rng.random() < 0.5:
        s.parameters["total_charge"] = value
        name = "total_charge"
    else:
        s.atoms.info["charge"] = value
        name = 'info["charge"]'
        wrong &= s.parameters.get("total_charge") is None
    if wrong:
        s.must_refuse.append(f"{name} of type {type(value).__name__}")
    return f"{name}={value!r}"


def _change_field(s: Subject) -> str:
    good = s.rng.normal(size=3) * s.pick(0.01, 1.0, 100.0)
    value, wrong = s.pick(
        (good, False), (good.tolist(), False), ([0, 0, 0], False), ([0, 0, 0.1], False),
        ([1, 2], True), (0.1, True), ("z", True), ([np.nan, 0, 0], True), ([[0, 0, 1]], True),
        ([1, 2, 3, 4], True), ([0, 0, 1j], True), (["0", "0", "1"], True), ({}, True),
    )  # fmt: skip
    inside = s.rng.random() < 0.5
    if inside:
        s.atoms.info["external_field"] = value
    else:
        s.parameters["external_field"] = value
    if wrong and (not inside or "external_field" not in s.parameters):
        s.must_refuse.append("malformed external_field")
    return f"external_field={value!r}"


def _change_fragments(s: Subject) -> str:
    n_atoms = len(s.atoms)
    number, number_wrong = s.pick(
        (np.arange(n_atoms) % 2, False), (np.zeros(n_atoms, dtype=int), False),
        (np.zeros((n_atoms, 2), dtype=int), True), (np.arange(n_atoms) % 2 * 1.0, False),
        (-np.ones(n_atoms, dtype=int), True), (np.full(n_atoms, 10**9), True),
        (np.array(["a"] * n_atoms, dtype="U1"), True), (None, True),
        (np.zeros((n_atoms, 0), dtype=int), True),
    )  # fmt: skip
    charges, wrong = s.pick(
        ([0.0, 0.0], False), ([1.0, -1.0], False), ([0.0], False), ([np.nan, 0.0], False),
        ([np.inf, 0], True), (["a", "b"], True), ([[0, 0]], True), ({}, True), (0.0, False),
        ([0.0] * 5, False), ([None, 0.0], True), ([1e6, -1e6], False),
    )  # fmt: skip
    if number is not None:
        s.atoms.arrays["fragments"] = number
    s.atoms.info["fragment_charges"] = charges
    if s.rng.random() < 0.4:
        potentials = s.pick([np.nan, 1.0], [1.0, np.nan], [1.0], "1", [np.inf, np.nan], [1e9, 1.0])
        s.atoms.info["fragment_potentials"] = potentials
    if (wrong or number_wrong) and n_atoms:
        s.must_refuse.append("malformed fragments")
    return f"fragments {None if number is None else number.shape}, charges {charges!r}"


def _change_electrode(s: Subject) -> str:
    value, wrong = ODD_NUMBERS[s.rng.integers(len(ODD_NUMBERS))]
    s.parameters["electrode_potential"] = value
    if wrong:
        s.must_refuse.append(f"electrode_potential of type {type(value).__name__}")
    return f"electrode_potential={value!r}"


def _change_parameter(s: Subject) -> str:
    name, value, wrong = s.pick(
        ("dtype", "float64", False), ("dtype", "float16", True), ("dtype", 64, True),
        ("dtype", np.float64, False), ("device", "cuda:9", True), ("device", "tpu", True),
        ("device", None, True), ("neighbors", "vesin", False), ("neighbors", "nearest", True),
        ("neighbors", None, True), ("force_accuracy", 1e-2, False), ("force_accuracy", 0, True),
        ("force_accuracy", 1e-40, True), ("force_accuracy", "high", True),
        ("force_accuracy", float("nan"), True), ("force_accuracy", [1e-3], True),
        ("compile", "yes", True), ("compile", 2, True), ("compile", None, True),
        ("chrage", 1, True), ("skin", 2.0, True), ("label", "x", False),
        ("directory", "/nonexistent", False),
    )  # fmt: skip
    s.parameters[name] = value
    if wrong:
        s.must_refuse.append(f"parameter {name}")
    return f"{name}={value!r}"


def _change_constraints(s: Subject) -> str:
    if len(s.atoms) < 2:
        return ""
    kind, constraint = s.pick(
        ("FixAtoms", FixAtoms([0])), ("FixAtoms none", FixAtoms([])),
        ("FixCartesian", FixCartesian([0], [True, False, True])),
        ("FixBondLength", FixBondLength(0, 1)),
    )  # fmt: skip
    s.atoms.set_constraint(constraint)
    return kind


def _change_extras(s: Subject) -> str:
    n_atoms = len(s.atoms)
    name, value = s.pick(
        ("masses", np.zeros(n_atoms)), ("masses", np.full(n_atoms, np.nan)),
        ("momenta", np.full((n_atoms, 3), np.nan)), ("initial_charges", np.full(n_atoms, np.inf)),
        ("initial_magmoms", np.full(n_atoms, np.nan)), ("forces", np.zeros((n_atoms, 3))),
        ("charge", np.ones(n_atoms)), ("tags", np.full(n_atoms, 10**9)),
        ("residuenames", np.array([""] * n_atoms, dtype="U3")),
    )  # fmt: skip
    s.atoms.arrays[name] = value
    s.atoms.info["energy"] = s.pick(1.0, "x", None, np.nan)
    return f"arrays[{name!r}]"


#: In this order, so that what is said about a change still holds after the next one.
CHANGES: tuple[Callable[[Subject], str], ...] = (
    _change_count, _change_elements, _change_pbc, _change_cell, _change_position,
    _change_charge, _change_field, _change_fragments, _change_electrode, _change_parameter,
    _change_constraints, _change_extras, _change_position_type, _change_number_type,
)  # fmt: skip
