"""Models and results that the parts share: tiny models on disk, and what a sane result is."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import chemical_symbols

from phicalc import load_model
from phicalc.checkpoint import ModelCard, save_model
from phicalc.potential import PotentialConfig, build_potential
from tools.fuzz.verdicts import Unsound

ELEMENTS = ("H", "O", "Na", "Cl")
TINY_BACKBONE = {
    "name": "nequip", "layers": 1, "channels": 4, "l_max": 1, "correlation": 1, "radial_basis": 4,
}  # fmt: skip
_TINY = {
    "elements": ELEMENTS, "cutoff": 3.0, "average_neighbors": 6.0, "backbone": TINY_BACKBONE,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "none": {"head": "none"},
    "qeq": {"head": "qeq"},
    "qeq-feedback": {"head": "qeq", "feedback": "embedding"},
    "qeq-network": {"head": "qeq", "feedback": "network", "total_charge_embedding": True},
    "latent": {"head": "latent", "atomic_dipoles": True},
    "spectral": {"head": "spectral"},
    "dirichlet": {"head": "dirichlet"},
    "solve": {"head": "solve"},
    "solve+coulomb": {"head": "solve+coulomb"},
}
SHIPPED = ("water", "water-pbe0", "water-phi", "dipeptides", "dipeptides-phi", "rocksalts",
           "carbon-chains", "ag3", "organics")  # fmt: skip

#: Beyond these a result is absurd: eV per atom beside the reference energies, e, eV/Å.
_MOST_ENERGY, _MOST_CHARGE, _MOST_FORCE = 1e3, 10.0, 1e3


@cache
def scratch() -> Path:
    """Folder for everything that is written; removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="phicalc-fuzz-")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory] = []


@cache
def tiny_model(name: str) -> Path:
    """Folder of a tiny model with random weights."""
    folder = scratch() / "models" / name
    potential = build_potential(PotentialConfig(**{**_TINY, **TINY[name]}), seed=7)
    save_model(folder, potential, ModelCard(name=f"tiny {name}", charge_range=(-1.0, 1.0)))
    return folder


def source_of(name: str) -> str:
    """Return what `PhiCalculator` takes: a registered name, or the folder of a tiny model."""
    return str(tiny_model(name)) if name in TINY else name


@cache
def config_of(name: str) -> PotentialConfig:
    """Return the configuration of a model."""
    return load_model(source_of(name))[0].config


def water(n_molecules: int = 1) -> Atoms:
    """Return water molecules in a row, 4 Å apart."""
    one = molecule("H2O")
    atoms = one.copy()
    for index in range(1, n_molecules):
        moved = one.copy()
        moved.translate([4.0 * index, 0, 0])
        atoms += moved
    return atoms


def check_results(results: dict[str, Any], numbers: np.ndarray, config: PotentialConfig) -> None:
    """Raise `Unsound` for results that are not finite, of another shape, or absurd."""
    n_atoms = len(numbers)
    for name, value in results.items():
        if not np.all(np.isfinite(value)):
            raise Unsound(f"{name} is not finite")
    forces = np.asarray(results.get("forces", np.zeros((n_atoms, 3))))
    if forces.shape != (n_atoms, 3):
        raise Unsound(f"forces have the shape {forces.shape}")
    reference = _reference_energy(numbers, config)
    if n_atoms and abs(results["energy"] - reference) > _MOST_ENERGY * n_atoms:
        raise Unsound(f"absurd energy: {results['energy']:.3g} eV for {n_atoms} atoms")
    if np.abs(forces).max(initial=0) > _MOST_FORCE:
        raise Unsound(f"absurd forces: {np.abs(forces).max():.3g} eV/Å")
    if np.abs(results.get("charges", np.zeros(0))).max(initial=0) > _MOST_CHARGE:
        raise Unsound(f"absurd charges: {np.abs(results['charges']).max():.3g} e")


def _reference_energy(numbers: np.ndarray, config: PotentialConfig) -> float:
    energies = dict(zip(config.elements, config.reference_energies, strict=True))
    return float(sum(energies.get(chemical_symbols[int(z)], 0.0) for z in numbers))
