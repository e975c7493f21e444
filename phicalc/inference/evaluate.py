"""Evaluate one structure for ASE: atoms → graph → prediction → results and concerns.

Everything that is reused from structure to structure is in the `Workspace`.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, InputError
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float64, Int64
from torch import Tensor

from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph, Conditions, edge_vectors, from_ase
from phicalc.graph.conditions import VACUUM
from phicalc.inference.closeness import Closeness, distance_concerns
from phicalc.inference.concerns import Concern
from phicalc.inference.domain import environment_concerns, structure_concerns
from phicalc.inference.failures import ase_errors
from phicalc.inference.plausibility import (
    fragment_concerns,
    refuse_implausible,
    result_concerns,
)
from phicalc.inference.uncertainty import Uncertainty, uncertainty_concerns
from phicalc.inference.workspace import Workspace
from phicalc.potential import Potential
from phicalc.structures import COINCIDENCE_DISTANCE, center_of_mass
from phicalc.suggest import suggestion


class Evaluation(NamedTuple):
    """Results for one structure, as ASE wants them."""

    results: dict[str, Any]
    """Only names that ASE knows, in ASE's units and shapes."""
    energy_terms: dict[str, float]
    """Terms of the energy in eV."""
    concerns: tuple[Concern, ...] = ()
    """Reasons to doubt them."""
    uncertainty: Uncertainty | None = None
    """Standard deviations of the results, if the model has them and they were wanted."""


class Prepared(NamedTuple):
    """A structure that has been checked, ready for the potential."""

    graph: AtomicGraph
    too_close: Closeness | None
    """The pair of atoms that is too close by most."""
    parts: Int64[np.ndarray, " n_atoms"] | None
    """Connected part of each atom, where net charges of parts are looked at."""
    concerns: tuple[Concern, ...]
    """Reasons to doubt any result for it."""


def evaluate(
    potential: Potential,
    atoms: Atoms,
    conditions: Conditions = VACUUM,
    *,
    stress: bool = False,
    workspace: Workspace | None = None,
) -> Evaluation:
    """Return everything that `phicalc.PhiCalculator` offers for one structure.

    Parameters
    ----------
    potential
        In evaluation mode, on the device where the work is done.
    atoms
        The structure; its calculator and ``info`` are ignored.
    conditions
        Total charge, external field and fragments, from
        `phicalc.inference.conditions.conditions_of`.
    stress
        Compute the stress too; only for structures periodic in three directions.
    workspace
        Of the structures before.

    Raises
    ------
    ase.calculators.calculator.CalculatorSetupError
        If the potential does not know an element.
    ase.calculators.calculator.InputError
        For positions, cells or numbers that make no sense.
    ase.calculators.calculator.CalculationFailed
        If the results are not finite or beyond physical limits, or memory ran out.
    """
    workspace = workspace or Workspace(potential)
    prepared = prepare(potential, atoms, conditions, workspace, stress=stress)
    with ase_errors():
        prediction = workspace.predictor(prepared.graph, stress=stress)
        if charges_exceed_plan(workspace, prediction):
            assert prediction.charges is not None
            guess = _array(prediction.charges)
            prepared = prepare(potential, atoms, conditions, workspace, guess, stress=stress)
            prediction = workspace.predictor(prepared.graph, stress=stress)
    evaluation = evaluation_of(prediction, atoms, prepared, workspace)
    if "charges" in evaluation.results:
        workspace.history.add(atoms, evaluation.results["charges"])
    return evaluation


def charges_exceed_plan(workspace: Workspace, prediction: Prediction) -> bool:
    """Whether charges came out so large that the electrostatic sums were too rough for them."""
    if prediction.charges is None or not workspace.potential.head.has_coulomb:
        return False
    return workspace.planner.underrated(prediction.charges)


def evaluation_of(
    prediction: Prediction, atoms: Atoms, prepared: Prepared, workspace: Workspace
) -> Evaluation:
    """Return the results of a prediction for one structure.

    Raises
    ------
    ase.calculators.calculator.CalculationFailed
        If they are not finite or beyond physical limits.
    """
    results = _results(prediction, atoms)
    terms = {name: float(term.sum()) for name, term in prediction.terms.items()}
    uncertainty = workspace.error_bars_of(prediction, atoms)
    concerns = [*prepared.concerns, *uncertainty_concerns(uncertainty, atoms)]
    refuse_implausible(results, terms["reference"], atoms, prepared.too_close, concerns)
    if workspace.domain is not None:  # a potential in memory may be untrained
        concerns += result_concerns(results, atoms, workspace.largest)
    if prepared.parts is not None:
        charges = results["charges"]
        concerns += fragment_concerns(prepared.parts, charges, atoms, workspace.potential.head)
    return Evaluation(results, terms, tuple(concerns), uncertainty)


def prepare(
    potential: Potential,
    atoms: Atoms,
    conditions: Conditions = VACUUM,
    workspace: Workspace | None = None,
    charge_guess: Float64[np.ndarray, " n_atoms"] | None = None,
    *,
    stress: bool = False,
) -> Prepared:
    """Check a structure and return the graph that the predictors take, on the CPU.

    Iterations start from `charge_guess` (e), or from the charges that the structures before let
    expect. The other parameters, and errors, are those of `evaluate`.
    """
    workspace = workspace or Workspace(potential)
    with ase_errors():
        graph = from_ase(atoms, potential.cutoff, conditions=conditions, search=workspace.search)
        _check_atoms(potential, atoms, conditions.total_charge)
        too_close = workspace.watch.closest(graph, workspace.search)
        if too_close is not None:
            _refuse_coincidence(graph)
        strange = workspace.strange_atom(graph)
        parts = workspace.parts(graph) if _may_part(workspace, conditions) else None
        if charge_guess is None:
            charge_guess = workspace.history.guess(atoms)
        if charge_guess is not None:
            graph = graph._replace(charge_guess=torch.from_numpy(charge_guess))
        graph = workspace.predictor.planning.prepare(graph, workspace.planner)
    concerns = [
        *structure_concerns(atoms, conditions, workspace.domain, potential, stress),
        *distance_concerns(too_close, atoms),
        *environment_concerns(atoms, strange, workspace.domain),
    ]
    return Prepared(graph, too_close, parts, tuple(concerns))


def _may_part(workspace: Workspace, conditions: Conditions) -> bool:
    """Whether fragments may carry fractions of a charge, and somebody would want to know."""
    head = workspace.potential.head
    shared = head.conducts or head.shifts_charges
    return shared and conditions.fragments is None and workspace.domain is not None


def _results(prediction: Prediction, atoms: Atoms) -> dict[str, Any]:
    """Return ASE's results of a prediction for one structure."""
    energy = float(prediction.energy.sum())
    results: dict[str, Any] = {
        "energy": energy,
        "free_energy": energy,
        "energies": _array(prediction.atomic_energies),
        "forces": _array(prediction.forces),
    }
    if prediction.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(_array(prediction.stress)[0])
    if prediction.charges is not None:
        charges = _array(prediction.charges)
        results["charges"] = charges
        if not atoms.pbc.any():
            results["dipole"] = charges @ (atoms.positions - center_of_mass(atoms))
            if prediction.atomic_dipoles is not None:
                results["dipole"] += _array(prediction.atomic_dipoles).sum(0)
    return results


def _array(tensor: Float64[Tensor, "..."]) -> Float64[np.ndarray, "..."]:
    """Return the float64 array of a tensor on any device."""
    return tensor.detach().cpu().to(torch.float64).numpy()


def _check_atoms(potential: Potential, atoms: Atoms, total_charge: float) -> None:
    """Refuse elements that the potential was not made for, and charges without atoms."""
    if len(atoms) == 0 and total_charge != 0:
        raise InputError(f"total charge {total_charge:g} e on no atoms: set it to 0")
    unknown = sorted(set(atoms.numbers.tolist()) - set(potential.elements))
    if unknown:
        known = ", ".join(chemical_symbols[z] for z in potential.elements)
        raise CalculatorSetupError(
            f"unknown elements {', '.join(chemical_symbols[z] for z in unknown)} in "
            f"{atoms.get_chemical_formula()}: this model knows {known}. {suggestion(atoms.symbols)}"
        )


def _refuse_coincidence(graph: AtomicGraph) -> None:
    """Refuse atoms that sit on top of each other, periodic images included."""
    distance, edge = edge_vectors(graph).norm(dim=1).min(dim=0)
    if distance < COINCIDENCE_DISTANCE:
        first, second = sorted(graph.edge_index[:, edge].tolist())
        symbols = [chemical_symbols[z] for z in graph.atomic_numbers.tolist()]
        image = " (a periodic image)" if bool(graph.edge_shifts[edge].any()) else ""
        raise InputError(
            f"atoms {first} ({symbols[first]}) and {second} ({symbols[second]}){image} are "
            f"{float(distance):.3g} Å apart: remove duplicates, or check the positions and the cell"
        )
