"""A model for torch-sim, which moves and relaxes many structures at once."""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from phicalc.calculators.phicalculator import PhiCalculator


class PhiModel(ModelInterface):  # type: ignore[misc]
    """Energies, forces and stress of a calculator for the structures of a torch-sim state.

    >>> import torch_sim  # doctest: +SKIP
    >>> model = PhiModel(PhiCalculator("water"), compute_stress=True)  # doctest: +SKIP
    >>> torch_sim.integrate(boxes, model, integrator=torch_sim.nvt_langevin, n_steps=1000,
    ...                     temperature=300, timestep=0.0005)  # doctest: +SKIP

    Structures go through the network together. A state of one structure keeps its neighbors and
    charges from step to step, and runs compiled functions, as the calculator does in ASE.

    Parameters
    ----------
    calculator
        Its `total_charge`, fields and other settings hold for all structures.
    compute_stress
        Compute the stress of structures periodic along all axes; torch-sim needs it for constant
        pressure and for relaxing cells.
    dtype
        Of the numbers that torch-sim gets. The precision of the network is the calculator's.

    Raises
    ------
    ValueError
        In `forward`, for stress of structures that are not periodic.
    ase.calculators.calculator.CalculatorError
        In `forward`, as the calculator does.
    """

    def __init__(
        self,
        calculator: PhiCalculator,
        *,
        compute_stress: bool = False,
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__()
        self.calculator = calculator
        self._device, self._dtype = calculator.potential.device, dtype
        self._compute_stress, self._compute_forces = compute_stress, True

    def forward(
        self, state: SimState | dict[str, Any], **_: Any
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return energy (n_systems,) in eV, forces (n_atoms, 3) in eV/Å, stress in eV/Å³.

        Charges (n_atoms,) in e come with models that have them.
        """
        if isinstance(state, dict):
            state = SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        structures = _structures(state)
        if self._compute_stress and not all(atoms.pbc.all() for atoms in structures):
            raise ValueError("stress needs structures that are periodic along all axes")
        found = self._results(structures)
        results = {
            "energy": np.array([each["energy"] for each in found]),
            "forces": np.concatenate([each["forces"] for each in found]),
        }
        if self._compute_stress:
            results["stress"] = np.array(
                [voigt_6_to_full_3x3_stress(each["stress"]) for each in found]
            )
        if "charges" in found[0]:
            results["charges"] = np.concatenate([each["charges"] for each in found])
        options: dict[str, Any] = {"device": state.positions.device, "dtype": self._dtype}
        return {name: torch.as_tensor(each, **options) for name, each in results.items()}

    def _results(self, structures: list[Atoms]) -> list[dict[str, Any]]:
        """Return what the calculator finds for each structure."""
        if len(structures) > 1:
            return self.calculator.batch(structures, stress=self._compute_stress)
        (atoms,) = structures
        if self._compute_stress:
            self.calculator.get_stress(atoms)
        self.calculator.get_forces(atoms)
        return [self.calculator.results]


def _structures(state: SimState) -> list[Atoms]:
    """Return the systems of a state, as ASE has them."""
    numbers, system = state.atomic_numbers.cpu().numpy(), state.system_idx.cpu().numpy()
    positions = state.positions.detach().cpu().double().numpy()
    cells = state.row_vector_cell.detach().cpu().double().numpy()
    pbc = np.asarray(torch.as_tensor(state.pbc).cpu())  # one for all axes in older versions
    return [
        Atoms(numbers[system == i], positions[system == i], cell=cell, pbc=pbc)
        for i, cell in enumerate(cells)
    ]
