"""States of torch-sim have our energies, forces and stress."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.stress import voigt_6_to_full_3x3_stress

from phicalc.structures import water_box

torch_sim = pytest.importorskip("torch_sim", reason='pip install "phicalc[torchsim]"')

from phicalc.integrations.torch_sim import PhiModel  # noqa: E402


def state_of(structures: list[Atoms]):
    return torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)


def sheared(atoms: Atoms) -> Atoms:
    """Return the atoms in a cell without a right angle."""
    shear = np.array([[1, 0.1, 0.02], [0, 1, -0.15], [0, 0, 1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    return atoms


@pytest.mark.parametrize("number", [1, 3])
def test_crystals_have_energies_forces_stress_and_charges(calculator, number):
    boxes = [sheared(water_box(2 + i, density=0.6, seed=i)) for i in range(number)]
    state = state_of(boxes)
    found = PhiModel(calculator, compute_stress=True)(state)
    start = 0
    for i, atoms in enumerate(boxes):
        rows, start = slice(start, start + len(atoms)), start + len(atoms)
        atoms.calc = calculator
        assert float(found["energy"][i]) == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(found["forces"][rows], atoms.get_forces(), atol=1e-8)
        np.testing.assert_allclose(found["charges"][rows], atoms.get_charges(), atol=1e-8)
        stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
        np.testing.assert_allclose(found["stress"][i], stress, atol=1e-9)


def test_molecules_go_without_stress(calculator):
    molecules = [molecule("H2O"), molecule("H2O2")]
    found = PhiModel(calculator)(state_of(molecules))
    assert set(found) == {"energy", "forces", "charges"}
    for i, atoms in enumerate(molecules):
        energy = calculator.get_potential_energy(atoms)
        assert float(found["energy"][i]) == pytest.approx(energy, abs=1e-8)
    with pytest.raises(ValueError, match="periodic"):
        PhiModel(calculator, compute_stress=True)(state_of(molecules))


def test_states_may_be_dictionaries_and_numbers_in_single_precision(calculator):
    state = state_of([water_box(2, density=0.6)])
    names = ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    given = {name: getattr(state, name) for name in names}
    found = PhiModel(calculator, dtype=torch.float32)(given)
    assert {each.dtype for each in found.values()} == {torch.float32}
    expected = PhiModel(calculator)(state)["forces"]
    torch.testing.assert_close(found["forces"].double(), expected, rtol=1e-6, atol=1e-6)


def test_dynamics_of_several_structures_conserves_energies(calculator):
    boxes = [water_box(2, density=0.4, seed=seed) for seed in (1, 2)]
    model, totals = PhiModel(calculator), []
    start, step = torch_sim.nve(model=model, dt=0.0001, kT=0.01, seed=1)
    state = start(state_of(boxes))
    for _ in range(50):
        state = step(state, dt=torch.tensor(0.0001 * torch_sim.units.MetalUnits.time))
        kinetic = torch_sim.calc_kinetic_energy(
            masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
        )
        totals.append((state.energy + kinetic).numpy())
    assert np.ptp(totals, axis=0).max() < 5e-3
    assert (state.positions - state_of(boxes).positions).abs().max() > 0.005
