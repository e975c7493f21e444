"""What ASE wants to know of one structure: atoms → graph → prediction → results, without state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, InputError
from ase.data import atomic_masses, chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from phicalc.compiled import CompiledPredictor
from phicalc.derivatives import Prediction
from phicalc.electrostatics import ChargeHistory, CoulombSettings
from phicalc.graph import AtomicGraph, edge_vectors, from_ase
from phicalc.inference.conditions import VACUUM, Environment, check_environment
from phicalc.potential import Potential
from phicalc.skin import NeighborSearch
from phicalc.structures import COINCIDENCE_DISTANCE, check_structure


class Evaluation(NamedTuple):
    """What a potential says about one structure, as ASE wants it."""

    results: dict[str, Any]
    """Only names that ASE knows, in ASE's units and shapes."""
    energy_terms: dict[str, float]
    """Terms of the energy in eV."""


class Workspace:
    """What is kept from structure to structure; results depend on it by less than the accuracy.

    Parameters
    ----------
    potential
        In evaluation mode, on the device where the work shall be done.
    neighbors
        Neighbour engine.
    settings
        Of the electrostatic sums; by default those of the potential.
    predictor
        By default one that never compiles.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        neighbors: str = "auto",
        settings: CoulombSettings | None = None,
        predictor: CompiledPredictor | None = None,
    ):
        self.planner = potential.coulomb_planner(settings)
        self.search = NeighborSearch(potential.cutoff, engine=neighbors)
        self.history = ChargeHistory()
        self.predictor = predictor or CompiledPredictor(potential, False)


def evaluate(
    potential: Potential,
    atoms: Atoms,
    environment: Environment = VACUUM,
    *,
    stress: bool = False,
    workspace: Workspace | None = None,
) -> Evaluation:
    """Compute everything that `phicalc.PhiCalculator` offers for one structure.

    Parameters
    ----------
    potential
        In evaluation mode, on the device where the work shall be done.
    atoms
        The structure; its calculator and ``info`` are ignored.
    environment
        Total charge, external field and fragments.
    stress
        Compute the stress too; only for structures periodic in three directions.
    workspace
        Of the structures before.

    Raises
    ------
    ase.calculators.calculator.CalculatorSetupError
        If the potential does not know an element.
    ase.calculators.calculator.InputError
        For positions, cells, charges or fields that make no sense.
    ase.calculators.calculator.CalculationFailed
        If the results are not finite, or memory ran out.
    """
    workspace = workspace or Workspace(potential)

    def attempt(guess: np.ndarray | None) -> Prediction:
        graph = prepare(potential, atoms, environment, workspace, guess)
        return workspace.predictor(graph, stress=stress)

    with ase_errors():
        prediction = attempt(None)
        if prediction.charges is not None and underrated(potential, workspace, prediction):
            prediction = attempt(_array(prediction.charges))
    evaluation = evaluation_of(prediction, atoms)
    if "charges" in evaluation.results:
        workspace.history.add(atoms, evaluation.results["charges"])
    return evaluation


def underrated(potential: Potential, workspace: Workspace, prediction: Prediction) -> bool:
    """Whether charges came out so large that the electrostatic sums were too rough for them."""
    if prediction.charges is None or not potential.head.has_coulomb:
        return False
    return workspace.planner.underrated(prediction.charges)


def evaluation_of(prediction: Prediction, atoms: Atoms) -> Evaluation:
    """Translate a prediction for one structure.

    Raises
    ------
    ase.calculators.calculator.CalculationFailed
        If it is not finite.
    """
    results = _results(prediction, atoms)
    bad = sorted(name for name, value in results.items() if not np.all(np.isfinite(value)))
    if bad:
        raise CalculationFailed(
            f"{', '.join(bad)} of {atoms.get_chemical_formula()} not finite. Look for atoms much "
            "too close together; if the structure is sound, the model does not cover it"
        )
    terms = {name: float(term.sum()) for name, term in prediction.terms.items()}
    return Evaluation(results, terms)


def prepare(
    potential: Potential,
    atoms: Atoms,
    environment: Environment = VACUUM,
    workspace: Workspace | None = None,
    charge_guess: np.ndarray | None = None,
) -> AtomicGraph:
    """Check a structure and make the graph that the potential takes.

    Iterations start from `charge_guess` (e), or what the structures before let expect. The other
    parameters, and errors, are those of `evaluate`.
    """
    workspace = workspace or Workspace(potential)
    with ase_errors():
        check_structure(atoms)
        _check_atoms(potential, atoms, environment.total_charge)
        check_environment(environment, potential, atoms)
        graph = from_ase(
            atoms,
            potential.cutoff,
            total_charge=environment.total_charge,
            search=workspace.search,
        )
        _check_distances(graph)
        graph = environment.apply(graph)
        if charge_guess is None:
            charge_guess = workspace.history.guess(atoms)
        if charge_guess is not None:
            graph = graph._replace(charge_guess=torch.from_numpy(charge_guess))
        graph = graph.to(potential.device)
        return potential.prepare(graph, workspace.planner)


def _results(prediction: Prediction, atoms: Atoms) -> dict[str, Any]:
    """ASE's results of a prediction for one structure."""
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
            results["dipole"] = charges @ (atoms.positions - _center_of_mass(atoms))
            if prediction.atomic_dipoles is not None:
                results["dipole"] += _array(prediction.atomic_dipoles).sum(0)
    return results


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Float64 array of a tensor on any device."""
    return tensor.detach().cpu().to(torch.float64).numpy()


def _center_of_mass(atoms: Atoms) -> np.ndarray:
    """Centre of mass with standard masses: ASE does not tell a calculator of changed masses."""
    if len(atoms) == 0:
        return np.zeros(3)
    return np.average(atoms.positions, axis=0, weights=atomic_masses[atoms.numbers])


def _check_atoms(potential: Potential, atoms: Atoms, total_charge: float) -> None:
    """Refuse elements that the potential was not made for, and charges without atoms."""
    if len(atoms) == 0 and total_charge != 0:
        raise InputError(f"total charge {total_charge:g} e on no atoms: set it to 0")
    unknown = sorted(set(atoms.numbers.tolist()) - set(potential.elements))
    if unknown:
        raise CalculatorSetupError(
            f"unknown elements {', '.join(chemical_symbols[z] for z in unknown)} in "
            f"{atoms.get_chemical_formula()}: this model knows "
            f"{', '.join(chemical_symbols[z] for z in potential.elements)}"
        )


def _check_distances(graph: AtomicGraph) -> None:
    """Refuse atoms that sit on top of each other, periodic images included."""
    if graph.n_edges == 0:
        return
    distance, edge = edge_vectors(graph).norm(dim=1).min(dim=0)
    if distance < COINCIDENCE_DISTANCE:
        first, second = sorted(graph.edge_index[:, edge].tolist())
        symbols = [chemical_symbols[z] for z in graph.atomic_numbers.tolist()]
        image = " (a periodic image)" if bool(graph.edge_shifts[edge].any()) else ""
        raise InputError(
            f"atoms {first} ({symbols[first]}) and {second} ({symbols[second]}){image} are "
            f"{float(distance):.3g} Å apart: remove duplicates, or check the positions and the cell"
        )


@contextmanager
def ase_errors() -> Iterator[None]:
    """Turn the errors of the layers below into those that ASE's users expect."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CalculationFailed(_out_of_memory(error)) from error
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise CalculationFailed(f"charge equilibration failed: {error}") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch has no kind of its own for it on the CPU
            raise
        raise CalculationFailed(_out_of_memory(error)) from error
    except ValueError as error:
        raise InputError(str(error)) from error


def _out_of_memory(error: Exception) -> str:
    """Say what helps."""
    advice = "use a smaller structure, dtype='float32' or device='cpu'"
    return f"out of memory: {advice} ({error})" if str(error) else f"out of memory: {advice}"
