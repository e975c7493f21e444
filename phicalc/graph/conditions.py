"""External conditions of a structure: total charge, electric field, and charges of its fragments.

Plain values that can be compared and hashed; `Conditions.apply` puts them into a graph. They come
from the arguments of a calculator or from ``atoms.info`` (`read_conditions`).
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from jaxtyping import Float64, Int64, Shaped

from phicalc.graph.record import AtomicGraph, Fragments

#: Keys of ``atoms.info`` and of ``atoms.arrays`` that describe fragments.
_CHARGES, _POTENTIALS, _NUMBERS = "fragment_charges", "fragment_potentials", "fragments"

#: Strongest field in V/Å. It is that of a proton at the Bohr radius, which ionizes everything.
LARGEST_FIELD = 51.4
#: Largest potential of a reservoir in V. Beyond it, valence shells are emptied or overfilled.
LARGEST_POTENTIAL = 100.0


class ConditionsError(InputError, ValueError):
    """External conditions that are malformed, impossible, or contradict each other."""


class FragmentConditions(NamedTuple):
    """Charges and reservoirs of the fragments of a structure."""

    number: tuple[int, ...]
    """Fragment of each atom."""
    charge: tuple[float | None, ...]
    """Net charge of each fragment in e; None where a reservoir sets it."""
    potential: tuple[float, ...]
    """Potential in V of the reservoir of each atom; 0 without a reservoir."""

    def tensors(self) -> Fragments:
        """Return the same as tensors of one structure."""
        fixed = [value is not None for value in self.charge]
        charge = [value or 0.0 for value in self.charge]
        return Fragments(
            number=torch.tensor(self.number, dtype=torch.int64),
            fixed=torch.tensor([fixed]),
            charge=torch.tensor([charge], dtype=torch.float64),
            potential=torch.tensor(self.potential, dtype=torch.float64),
        )


class Conditions(NamedTuple):
    """External conditions of one structure."""

    total_charge: float = 0.0
    """Net charge in e; with fragments, the sum of the charges that are fixed."""
    external_field: tuple[float, float, float] | None = None
    """Uniform electric field in V/Å."""
    fragments: FragmentConditions | None = None
    """Fragments with given charges, or connected to reservoirs of charge."""

    @property
    def charge_is_fixed(self) -> bool:
        """Whether the total charge is given, and not set by a reservoir."""
        return self.fragments is None or None not in self.fragments.charge

    def apply(self, graph: AtomicGraph) -> AtomicGraph:
        """Return the graph of one structure under these conditions."""
        charge = torch.full_like(graph.total_charge, self.total_charge)
        graph = graph._replace(total_charge=charge)
        if self.external_field is not None and any(self.external_field):
            field = torch.tensor([self.external_field], dtype=torch.float64)
            graph = graph._replace(external_field=field)
        if self.fragments is not None:
            graph = graph._replace(fragments=self.fragments.tensors())
        return graph


#: No charge, no field.
VACUUM = Conditions()


def total_charge_of(atoms: Atoms) -> float:
    """Return the total charge in ``atoms.info["charge"]`` in e, 0 where there is none.

    Raises
    ------
    ConditionsError
        If it is not one finite number.
    """
    if "charge" not in atoms.info:
        return 0.0
    return as_number(atoms.info["charge"], 'atoms.info["charge"]', "net charge in e")


def read_conditions(
    atoms: Atoms,
    *,
    total_charge: float | None = None,
    external_field: list[float] | None = None,
    electrode_potential: float | None = None,
) -> Conditions:
    """Return the conditions of a structure: the arguments, else ``atoms.info``, else nothing.

    Parameters
    ----------
    atoms
        The structure.
    total_charge
        Net charge in e.
    external_field
        Uniform electric field in V/Å, three numbers.
    electrode_potential
        Potential in V of a reservoir of charge for the whole structure.

    Raises
    ------
    ConditionsError
        For values that are malformed, impossible, or contradict each other.
    """
    charge, field = total_charge, external_field
    if charge is None and "charge" in atoms.info:
        charge = total_charge_of(atoms)
    if field is None and atoms.info.get("external_field") is not None:
        field = as_field(atoms.info["external_field"], 'atoms.info["external_field"]')
    fragments = _fragments(atoms, electrode_potential, charge)
    if fragments is not None:
        charge = sum(value for value in fragments.charge if value is not None)
    vector = None if field is None else (field[0], field[1], field[2])
    conditions = Conditions(charge or 0.0, vector, fragments)
    _refuse_impossible(conditions, atoms)
    return conditions


def as_number(value: Any, name: str, meaning: str) -> float:
    """Return one finite number.

    Raises
    ------
    ConditionsError
        For anything else; the message contains `name` and `meaning`.
    """
    array = _as_array(value)
    if array.shape != () or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise ConditionsError(f"{name} must be one finite number ({meaning}), got {value!r}")
    return float(array)


def as_field(value: Any, name: str) -> list[float]:
    """Return an electric field in V/Å as three floats that JSON can hold.

    Raises
    ------
    ConditionsError
        For anything but three finite numbers.
    """
    array = _as_array(value)
    if array.shape != (3,) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ConditionsError(f"{name} must be three finite numbers (V/Å), got {value!r}")
    return [float(component) for component in array]


def _as_array(value: Any) -> Shaped[np.ndarray, "..."]:
    """Return an array; an empty one of objects if NumPy makes none of the value."""
    try:
        return np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        return np.empty(0, dtype=object)


def _refuse_impossible(conditions: Conditions, atoms: Atoms) -> None:
    """Raise for charges, fields and potentials that no structure of these atoms survives."""
    charges = [conditions.total_charge]
    if conditions.fragments is not None:
        charges += [charge for charge in conditions.fragments.charge if charge is not None]
    worst = max(charges, key=abs)
    # Numbers that are no integers are refused elsewhere (`phicalc.structures.check_structure`).
    electrons = float(np.sum(atoms.numbers)) if atoms.numbers.dtype.kind in "iu" else np.inf
    if len(atoms) and abs(worst) > electrons:
        raise ConditionsError(
            f"a charge of {worst:g} e on {atoms.get_chemical_formula()}, whose neutral atoms have "
            f"{electrons:g} electrons: correct the total charge or the charges of the fragments"
        )
    if conditions.external_field is not None:
        strength = float(np.linalg.norm(conditions.external_field))
        if strength > LARGEST_FIELD:
            raise ConditionsError(
                f"external_field of {strength:g} V/Å: at most {LARGEST_FIELD:g} V/Å, which "
                "ionizes every atom, is possible. Check the unit (1 V/nm = 0.1 V/Å)"
            )
    if conditions.fragments is not None:
        highest = max(map(abs, conditions.fragments.potential), default=0.0)
        if highest > LARGEST_POTENTIAL:
            raise ConditionsError(
                f"a reservoir at {highest:g} V: potentials must lie within "
                f"±{LARGEST_POTENTIAL:g} V. Check the unit (V)"
            )


def _fragments(
    atoms: Atoms, potential: float | None, charge: float | None
) -> FragmentConditions | None:
    """Return the fragments of a structure, or one reservoir for all of it."""
    if potential is None and atoms.info.get("electrode_potential") is not None:
        name = 'atoms.info["electrode_potential"]'
        potential = as_number(atoms.info["electrode_potential"], name, "V")
    described = any(atoms.info.get(key) is not None for key in (_CHARGES, _POTENTIALS))
    if described and potential is not None:
        raise ConditionsError(
            "electrode_potential is for the whole structure: give the potentials of fragments in "
            f'atoms.info["{_POTENTIALS}"]'
        )
    if described:
        return _described_fragments(atoms, charge)
    if potential is None:
        return None
    if charge is not None:
        raise ConditionsError(
            f"electrode_potential={potential:g} V lets the total charge adjust itself, and a total "
            f"charge of {charge:g} e was given too: leave one of them out"
        )
    return FragmentConditions((0,) * len(atoms), (None,), (potential,) * len(atoms))


def _described_fragments(atoms: Atoms, total_charge: float | None) -> FragmentConditions:
    """Return the fragments that ``atoms.arrays`` and ``atoms.info`` describe."""
    charges, potentials = _charges_and_potentials(atoms)
    number = _numbers(atoms, len(charges))
    at_atoms = np.nan_to_num(potentials)[number]
    free = np.flatnonzero(np.isnan(charges))
    fixed_sum = float(np.nansum(charges))
    if total_charge is not None and len(free):
        # Free fragments share what the others leave: only differences of potentials count.
        number = np.where(np.isin(number, free), free[0], number)
        charges[free[0]] = total_charge - fixed_sum
    elif total_charge is not None and abs(total_charge - fixed_sum) > 1e-6:
        raise ConditionsError(
            f"the charges of the fragments sum to {fixed_sum:g} e, and the total charge is "
            f"{total_charge:g} e: leave the total charge out, or correct one of them"
        )
    charge = tuple(None if np.isnan(value) else float(value) for value in charges)
    return FragmentConditions(tuple(number.tolist()), charge, tuple(at_atoms.tolist()))


def _charges_and_potentials(
    atoms: Atoms,
) -> tuple[Float64[np.ndarray, " n_fragments"], Float64[np.ndarray, " n_fragments"]]:
    """Return charges (e) and potentials (V) of the fragments, NaN where the other is given."""
    charges, potentials = (_per_fragment(atoms, key) for key in (_CHARGES, _POTENTIALS))
    if charges is None or potentials is None:
        given = potentials if charges is None else charges
        assert given is not None  # one of them is there
        missing = np.full_like(given, np.nan)
        charges, potentials = (missing, given) if charges is None else (given, missing)
    if charges.shape != potentials.shape or (np.isnan(charges) == np.isnan(potentials)).any():
        raise ConditionsError(
            f'atoms.info["{_CHARGES}"] and ["{_POTENTIALS}"] must give each fragment either a '
            "charge (e) or a potential (V) and NaN in the other, got "
            f"{charges.tolist()} and {potentials.tolist()}"
        )
    return charges, potentials


def _per_fragment(atoms: Atoms, key: str) -> Float64[np.ndarray, " n_fragments"] | None:
    """Return one float per fragment, NaN allowed; None without the key."""
    if atoms.info.get(key) is None:
        return None
    values = np.atleast_1d(_as_array(atoms.info[key]))
    shaped = values.ndim == 1 and values.size > 0
    if not shaped or values.dtype.kind not in "iuf" or np.isinf(values).any():
        raise ConditionsError(
            f'atoms.info["{key}"] must be one number per fragment, got {atoms.info[key]!r}'
        )
    return values.astype(float)


def _numbers(atoms: Atoms, n_fragments: int) -> Int64[np.ndarray, " n_atoms"]:
    """Return the fragment of each atom; every fragment has atoms."""
    number = atoms.arrays.get(_NUMBERS)
    if (
        number is None
        or number.shape != (len(atoms),)
        or number.dtype.kind not in "iu"
        or not np.array_equal(np.unique(number), np.arange(n_fragments))
    ):
        raise ConditionsError(
            f'atoms.arrays["{_NUMBERS}"] must say to which of the {n_fragments} fragments each of '
            f"the {len(atoms)} atoms belongs, with integers from 0 to {n_fragments - 1} that all "
            f"occur; got {_described(number)}"
        )
    return np.asarray(number, dtype=np.int64)


def _described(number: Shaped[np.ndarray, "..."] | None) -> str:
    """Say what came in place of the numbers of fragments."""
    if number is None:
        return "nothing"
    values = list(dict.fromkeys(number.ravel().tolist()))[:8]
    return f"an array of shape {number.shape} and type {number.dtype} with {values}"
