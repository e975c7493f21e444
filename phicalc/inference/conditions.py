"""What acts on the atoms of a structure beside each other: charge, field, reservoirs of charge."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, InputError

from phicalc.card import ModelCard
from phicalc.graph import AtomicGraph, Fragments
from phicalc.potential import Potential

#: Keys of ``atoms.info`` and of ``atoms.arrays`` by which fragments are described.
_CHARGES, _POTENTIALS, _NUMBERS = "fragment_charges", "fragment_potentials", "fragments"


class ChargeGroups(NamedTuple):
    """Fragments of a structure, as plain values that can be compared."""

    number: tuple[int, ...]
    """Fragment of each atom."""
    charge: tuple[float | None, ...]
    """Net charge of each fragment in e; None where it is free."""
    potential: tuple[float, ...]
    """Potential in V of the reservoir of each atom; 0 where there is none."""


class Environment(NamedTuple):
    """What acts on the atoms of a structure beside each other."""

    total_charge: float = 0.0
    """Net charge in e; with fragments, as far as it is fixed."""
    external_field: tuple[float, float, float] | None = None
    """Uniform electric field in V/Å."""
    fragments: ChargeGroups | None = None
    """Fragments with charges, or at potentials, of their own."""

    def apply(self, graph: AtomicGraph) -> AtomicGraph:
        """Put field and fragments into the graph of the structure."""
        float64 = torch.float64
        if self.external_field is not None and any(self.external_field):
            field = torch.tensor([self.external_field], dtype=float64)
            graph = graph._replace(external_field=field)
        if self.fragments is None:
            return graph
        number, charge, potential = self.fragments
        return graph._replace(
            fragments=Fragments(
                number=torch.tensor(number, dtype=torch.int64),
                fixed=torch.tensor([[value is not None for value in charge]]),
                charge=torch.tensor([[value or 0.0 for value in charge]], dtype=float64),
                potential=torch.tensor(potential, dtype=float64),
            )
        )


#: No charge, no field.
VACUUM = Environment()


def environment_of(atoms: Atoms, parameters: Mapping[str, Any]) -> Environment:
    """Charge, field and fragments by precedence: parameters, ``atoms.info``, nothing.

    Raises
    ------
    ase.calculators.calculator.InputError
        For values that make no sense, or contradict each other.
    """
    charge, field = parameters["total_charge"], parameters["external_field"]
    if charge is None and "charge" in atoms.info:
        charge = as_number(atoms.info["charge"], 'atoms.info["charge"]', "net charge in e")
    if field is None and atoms.info.get("external_field") is not None:
        field = as_field(atoms.info["external_field"], 'atoms.info["external_field"]')
    groups = _groups(atoms, parameters["electrode_potential"], charge)
    if groups is not None:
        charge = sum(value for value in groups.charge if value is not None)
    field = None if field is None else (field[0], field[1], field[2])
    return Environment(charge or 0.0, field, groups)


def as_number(value: Any, name: str, meaning: str) -> float:
    """Check that this is one finite number."""
    array = as_array(value)
    if array.shape != () or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise InputError(f"{name} must be one finite number ({meaning}), got {value!r}")
    return float(array)


def as_field(value: Any, name: str) -> list[float]:
    """Electric field as three finite floats, in a form that JSON can hold."""
    array = as_array(value)
    if array.shape != (3,) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError(f"{name} must be three finite numbers (V/Å), got {value!r}")
    return [float(component) for component in array]


def as_array(value: Any) -> np.ndarray:
    """Array of whatever was given; of objects, where numpy cannot make numbers of it."""
    try:
        return np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        return np.empty(0, dtype=object)


def _groups(atoms: Atoms, potential: float | None, charge: float | None) -> ChargeGroups | None:
    """Fragments of a structure, from its arrays and info or one potential for all of it."""
    if potential is None and atoms.info.get("electrode_potential") is not None:
        name = 'atoms.info["electrode_potential"]'
        potential = as_number(atoms.info["electrode_potential"], name, "V")
    described = any(atoms.info.get(key) is not None for key in (_CHARGES, _POTENTIALS))
    if described and potential is not None:
        raise InputError(
            "electrode_potential is for the whole structure: give the potentials of fragments in "
            f'atoms.info["{_POTENTIALS}"]'
        )
    if described:
        return _fragments(atoms, charge)
    if potential is None:
        return None
    if charge is not None:
        raise InputError(
            f"electrode_potential={potential:g} V lets the total charge adjust itself, and a total "
            f"charge of {charge:g} e was given too: leave one of them out"
        )
    return ChargeGroups((0,) * len(atoms), (None,), (potential,) * len(atoms))


def _fragments(atoms: Atoms, total_charge: float | None) -> ChargeGroups:
    """Fragments as ``atoms.arrays`` and ``atoms.info`` describe them."""
    charges, potentials = (_per_fragment(atoms, key) for key in (_CHARGES, _POTENTIALS))
    charges = np.full_like(potentials, np.nan) if charges is None else charges
    potentials = np.full_like(charges, np.nan) if potentials is None else potentials
    if charges.shape != potentials.shape or (np.isnan(charges) == np.isnan(potentials)).any():
        raise InputError(
            f'atoms.info["{_CHARGES}"] and ["{_POTENTIALS}"] must give each fragment either a '
            "charge (e) or a potential (V) and NaN in the other, got "
            f"{charges.tolist()} and {potentials.tolist()}"
        )
    number = _numbers(atoms, len(charges))
    at_atoms = np.nan_to_num(potentials)[number]
    free = np.flatnonzero(np.isnan(charges))
    fixed_sum = float(np.nansum(charges))
    if total_charge is not None and len(free):
        # Free fragments share what the others leave: only differences of potentials count.
        number = np.where(np.isin(number, free), free[0], number)
        charges[free[0]] = total_charge - fixed_sum
    elif total_charge is not None and abs(total_charge - fixed_sum) > 1e-6:
        raise InputError(
            f"the charges of the fragments sum to {fixed_sum:g} e, and the total charge is "
            f"{total_charge:g} e: leave the total charge out, or correct one of them"
        )
    charge = tuple(None if np.isnan(value) else float(value) for value in charges)
    return ChargeGroups(tuple(number.tolist()), charge, tuple(at_atoms.tolist()))


def _per_fragment(atoms: Atoms, key: str) -> np.ndarray | None:
    """One float per fragment, NaN allowed."""
    if atoms.info.get(key) is None:
        return None
    values = np.atleast_1d(as_array(atoms.info[key]))
    if values.ndim != 1 or values.dtype.kind not in "iuf" or np.isinf(values).any():
        raise InputError(
            f'atoms.info["{key}"] must be one number per fragment, got {atoms.info[key]!r}'
        )
    return values.astype(float)


def _numbers(atoms: Atoms, n_fragments: int) -> np.ndarray:
    """Fragment of each atom; all of them have atoms."""
    number = atoms.arrays.get(_NUMBERS)
    if (
        number is None
        or number.dtype.kind not in "iu"
        or not np.array_equal(np.unique(number), np.arange(n_fragments))
    ):
        raise InputError(
            f'atoms.arrays["{_NUMBERS}"] must say to which of the {n_fragments} fragments each '
            f"atom belongs, with integers from 0 to {n_fragments - 1} that all occur; got "
            + ("nothing" if number is None else f"{np.unique(number).tolist()}")
        )
    return np.asarray(number)


def check_environment(environment: Environment, potential: Potential, atoms: Atoms) -> None:
    """Refuse fields and fragments where they have no meaning.

    Raises
    ------
    ase.calculators.calculator.CalculatorSetupError
        If the model lacks what they act on.
    ase.calculators.calculator.InputError
        If the energy would not be defined.
    """
    groups, field = environment.fragments, environment.external_field
    if groups is not None and not potential.head.has_charges:
        raise CalculatorSetupError("fragments have charges, and this model has none")
    if groups is not None and any(groups.potential) and not potential.head.charges_flow:
        raise CalculatorSetupError(
            "electrode potentials need charges that can flow, and this model has no charge "
            f"equilibration (head {potential.config.head.name!r})"
        )
    if groups is not None and None in groups.charge and potential.charge_embedding is not None:
        raise CalculatorSetupError(
            "charge that flows in from a reservoir is unknown beforehand, and the total charge is "
            "an input of this model: fix the total charge too"
        )
    if field is None or not any(field):
        return
    if not potential.head.has_charges:
        raise CalculatorSetupError("external_field acts on charges, and this model has none")
    if groups is not None and None in groups.charge:
        raise InputError(
            "external_field with charge that flows in from a reservoir: the energy would depend on "
            "the origin. Fix the total charge to 0 too"
        )
    _check_field(np.array(field), environment.total_charge, atoms)


def _check_field(field: np.ndarray, total_charge: float, atoms: Atoms) -> None:
    """Refuse fields in which the energy is not defined."""
    if total_charge != 0:
        raise InputError(
            f"external_field with a total charge of {total_charge:g} e: the energy "
            "would depend on the origin. Use a neutral structure, or add the force q·E yourself"
        )
    periodic = np.array(atoms.cell)[atoms.pbc]
    lengths = np.linalg.norm(periodic, axis=1)
    if np.any(np.abs(periodic @ field) > 1e-8 * np.linalg.norm(field) * lengths):
        raise InputError(
            f"external_field={field.tolist()} has a component along a periodic axis, where charges "
            "have no potential energy in it. Use it along open axes only (pbc=False there); the "
            "forces of a small field F in a periodic cell are those without it plus Z*·F, with Z* "
            "from get_born_effective_charges() (for energies stationary in the charges)"
        )


def charge_concern(potential: Potential, card: ModelCard | None, charge: float) -> str:
    """Why the model may be wrong for this total charge; empty if there is no reason."""
    head = potential.head
    blind = not head.conserves_total_charge and potential.charge_embedding is None
    if charge != 0 and blind:
        kind = "charges that sum to zero" if head.has_charges else "no charges"
        return f"this model has {kind} and gives the energy of the neutral structure"
    if card is None or card.charge_range is None:
        return ""
    low, high = card.charge_range
    if low <= charge <= high:
        return ""
    return (
        f"model {card.name!r} was trained on total charges from {low:g} to {high:g} e; "
        "treat the results as an extrapolation"
    )
