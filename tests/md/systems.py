"""Small things that move: springs with a memory, an ideal gas, water with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from phicalc.checkpoint import ModelCard, save_model
from phicalc.potential import Potential, build_potential
from phicalc.structures import water_box

from ..tiny import flat_config

#: Settings of every ensemble and every way the cell can move.
ENSEMBLES = {
    "nve": {"ensemble": "nve"},
    "langevin": {"thermostat": "langevin"},
    "bussi": {"thermostat": "bussi"},
    "nose-hoover": {"thermostat": "nose-hoover"},
    "berendsen": {"thermostat": "berendsen"},
    "npt": {"ensemble": "npt"},
    "npt full": {"ensemble": "npt", "cell_motion": "full"},
    "npt axes": {"ensemble": "npt", "cell_motion": "axes", "axes": "ac"},
    "npt berendsen": {"ensemble": "npt", "thermostat": "berendsen"},
    "npt berendsen axes": {
        "ensemble": "npt", "thermostat": "berendsen", "cell_motion": "axes", "axes": "b",
    },
}  # fmt: skip

#: Where the springs are at rest, in Å.
SITES = 2.2 * np.concatenate([np.eye(3), -np.eye(3)]) + 5
SITES += np.random.default_rng(3).normal(scale=0.2, size=(6, 3))


class Springs(Calculator):
    """A spring between every two atoms, and forces that remember how many came before.

    Such a memory, larger than that of any real calculator, shows restarts that do not reset it.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    stiffness = 0.5  # eV/Å²
    lengths = np.linalg.norm(SITES[:, None] - SITES, axis=2)

    def __init__(self, memory: float = 1e-5) -> None:
        super().__init__()
        self.memory, self.calls = memory, 0

    def reset(self) -> None:
        super().reset()
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = atoms.positions[:, None] - atoms.positions
        distances = np.linalg.norm(vectors, axis=2) + np.eye(len(atoms))
        stretch = (distances - self.lengths) * (1 - np.eye(len(atoms)))
        forces = -self.stiffness * (stretch / distances)[:, :, None] * vectors
        virial = np.einsum("nma,nmb->ab", forces, vectors) / 2
        energy = float(self.stiffness * (stretch**2).sum() / 4)
        stress = -virial / abs(atoms.cell.volume) if atoms.cell.rank == 3 else np.zeros((3, 3))
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces.sum(1) * (1 + self.memory * self.calls),
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }
        self.calls += 1


class NoInteraction(Calculator):
    """An ideal gas."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        zero = np.zeros((len(atoms), 3))
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": zero, "stress": np.zeros(6)}


def cluster(calculator: Calculator | None = None) -> Atoms:
    """Six argon atoms on springs, in a box."""
    atoms = Atoms("Ar6", SITES, cell=[10.0, 11.0, 12.0], pbc=True)
    atoms.calc = calculator or Springs()
    return atoms


def gas(n_atoms: int, volume_per_atom: float = 1000.0) -> Atoms:
    """Return argon without interaction."""
    edge = (n_atoms * volume_per_atom) ** (1 / 3)
    positions = np.random.default_rng(5).uniform(0, edge, (n_atoms, 3))
    atoms = Atoms(f"Ar{n_atoms}", positions, cell=[edge] * 3, pbc=True)
    atoms.calc = NoInteraction()
    return atoms


def tiny_potential(seed: int = 1) -> Potential:
    """Return a potential of water with random weights."""
    config = flat_config(
        elements=("H", "O"), cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1
    )
    return build_potential(config, seed=seed)


def save_tiny_model(folder: Path, seed: int = 1) -> Path:
    """Save it as a model."""
    save_model(folder, tiny_potential(seed), ModelCard(name="tiny"))
    return folder


def waters() -> Atoms:
    """Return two waters in a box."""
    return water_box(2, density=0.2)
