"""External conditions of a structure, checked against the model that they act on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError
from jaxtyping import Float64

from phicalc.graph import Conditions, ConditionsError, read_conditions
from phicalc.potential import Potential

#: Parameters of a calculator that set conditions.
NAMES = ("total_charge", "external_field", "electrode_potential")


def conditions_of(
    atoms: Atoms, parameters: Mapping[str, Any], potential: Potential | None = None
) -> Conditions:
    """Return the conditions of a structure, checked.

    Parameters
    ----------
    atoms
        The structure.
    parameters
        ``total_charge`` (e), ``external_field`` (V/Å) and ``electrode_potential`` (V), each None
        where ``atoms.info`` decides; other entries do not matter.
    potential
        Check that the conditions mean something to this potential, too.

    Raises
    ------
    phicalc.graph.ConditionsError
        For values that are malformed, impossible, contradict each other, or leave the energy
        undefined.
    ase.calculators.calculator.CalculatorSetupError
        If the potential lacks the charges that the conditions act on.
    """
    conditions = read_conditions(atoms, **{name: parameters[name] for name in NAMES})
    if potential is not None:
        _check_fragments(conditions, potential)
        _check_field(conditions, potential, atoms)
    return conditions


def _check_fragments(conditions: Conditions, potential: Potential) -> None:
    """Refuse fragments and reservoirs that the charges of a potential cannot follow."""
    fragments = conditions.fragments
    if fragments is None:
        return
    head = potential.head
    if not head.has_charges:
        raise CalculatorSetupError("fragments have charges, and this model has none")
    if not head.conserves_total_charge:
        raise CalculatorSetupError(
            "fragments have charges, and those of this model sum to zero whatever is asked for "
            f"(head {potential.config.head.name!r})"
        )
    if conditions.charge_is_fixed and not any(fragments.potential):
        return
    if not head.charges_flow:
        raise CalculatorSetupError(
            "electrode potentials need charges that can flow, and this model has no charge "
            f"equilibration (head {potential.config.head.name!r})"
        )
    if potential.charge_embedding is not None and not conditions.charge_is_fixed:
        raise CalculatorSetupError(
            "charge that flows in from a reservoir is unknown beforehand, and the total charge is "
            "an input of this model: fix the total charge too"
        )
    if not head.is_stationary:
        raise CalculatorSetupError(
            "electrode potentials need charges that minimize the whole energy, and those of this "
            f"model do not ({_why_not_stationary(potential)}): the charge that flows in would not "
            "minimize E − V·Q. Compare total charges instead, with get_electrode_potentials() for "
            "∂E/∂Q"
        )


def _check_field(conditions: Conditions, potential: Potential, atoms: Atoms) -> None:
    """Refuse fields where the energy is not defined."""
    field = conditions.external_field
    if field is None or not any(field):
        return
    head = potential.head
    if not head.has_charges:
        raise CalculatorSetupError("external_field acts on charges, and this model has none")
    if head.charges_flow and not head.is_stationary:
        raise CalculatorSetupError(
            "external_field needs charges that minimize the whole energy, and those of this model "
            f"do not ({_why_not_stationary(potential)}): the dipole moment would differ from "
            "−∂E/∂field. For small fields, add −μ·field with the dipole moment without field"
        )
    if not conditions.charge_is_fixed:
        raise ConditionsError(
            "external_field with charge that flows in from a reservoir: the energy would depend on "
            "the origin. Fix the total charge to 0 too"
        )
    if conditions.total_charge != 0:
        raise ConditionsError(
            f"external_field with a total charge of {conditions.total_charge:g} e: the energy "
            "would depend on the origin. Use a neutral structure, or add the force q·E yourself"
        )
    if not head.polarizes_cells:
        _refuse_periodic_component(np.array(field), atoms)


def _refuse_periodic_component(field: Float64[np.ndarray, "3"], atoms: Atoms) -> None:
    """Refuse fields (V/Å) along periodic axes, where charges have no potential energy in them."""
    periodic = np.array(atoms.cell)[atoms.pbc]
    lengths = np.linalg.norm(periodic, axis=1)
    if np.any(np.abs(periodic @ field) > 1e-8 * np.linalg.norm(field) * lengths):
        raise ConditionsError(
            f"external_field={field.tolist()} has a component along a periodic axis, where charges "
            "of this model have no potential energy in it. Use it along open axes only (pbc=False "
            "there), or a model with the head 'acks2' and formal charges by element"
        )


def _why_not_stationary(potential: Potential) -> str:
    """Say why charges do not minimize the whole energy of a potential."""
    if potential.feedback.uses_charges:
        return f"feedback {potential.config.feedback.name!r} adds energy that they ignore"
    return "the energy contains only a part of the functional that they minimize"
