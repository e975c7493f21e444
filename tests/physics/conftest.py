"""Small structures and potentials for the physics tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.derivatives import predict
from phicalc.graph import from_ase
from phicalc.potential import Potential, build_potential
from phicalc.testing import Evaluation

from ..tiny import flat_config

ELEMENTS = ("H", "C", "O", "Na", "Cl")

HEADS = {
    "none": {"head": "none"},
    "qeq": {},
    "coulomb": {"electrostatic_energy": "coulomb"},
    "embedding": {"charge_feedback": "embedding"},
    "network": {"charge_feedback": "network", "charge_range": (-2.0, 2.0), "charge_basis": 8},
    "acks2": {"head": {"name": "acks2"}},
    "acks2 by element": {
        "head": {"name": "acks2", "formal_charges": "element", "hardness": "environment"}
    },
    "acks2 with feedback": {"head": {"name": "acks2"}, "charge_feedback": "embedding"},
    "walls": {
        "head": {"name": "qeq", "electronegativity_range": 5.0},
        "repulsion": "zbl",
        "inner_envelope": True,
        "density_limit": 1.0,
    },  # fmt: skip
    "latent": {"head": "latent"},
    "dispersion": {"head": "latent", "dispersion": "learned"},
    "dispersion alone": {"head": "none", "dispersion": "learned", "repulsion": "zbl"},
    "latent with links": {"head": "latent+links"},
    "environment": {"hardness": "environment", "charge_feedback": "embedding"},
    "environment alone": {"hardness": "environment", "gate": False, "readout": "last"},
    "atomic dipoles": {"atomic_dipoles": True, "smearing": "trained"},
    "spectral": {"head": "spectral", "eigenpairs": 6},
    "dirichlet": {"head": "dirichlet"},
    "solve": {"head": "solve"},
    "solve+coulomb": {"head": "solve+coulomb"},
    "solve with links": {"head": "solve+links"},
    "solve+coulomb with links": {"head": {"name": "solve+coulomb+links", "channels": 1}},
    "solve with feedback": {"head": "solve", "charge_feedback": "embedding"},
    "total charge": {"total_charge_embedding": True, "charge_feedback": "network"},
    "total charge only": {"total_charge_embedding": True, "head": "none"},
    "tensors": {"hidden_l_max": 1, "l_max": 1, "correlation": 2},
    "nequip": {"head": "none", "hidden_l_max": 2, "correlation": 1},
}


def _salt(charge: float) -> Atoms:
    """Rattled rocksalt in a triclinic cell smaller than the cutoff."""
    rng = np.random.default_rng(7)
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell + rng.normal(0, 0.2, (3, 3)), scale_atoms=True)
    atoms.rattle(0.15, seed=8)
    atoms.info["charge"] = charge
    return atoms


def _part_of_salt(charge: float, *open_axes: int) -> Atoms:
    """Slab or wire of the same salt; vectors of the cell along open axes stay, and mean nothing."""
    atoms = _salt(charge)
    atoms.pbc[list(open_axes)] = False
    return atoms


def _ethanol(charge: float) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=9)
    atoms.info["charge"] = charge
    return atoms


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "molecule": lambda: _ethanol(0),
    "cation": lambda: _ethanol(1),
    "crystal": lambda: _salt(0),
    "charged-crystal": lambda: _salt(-1),
    "slab": lambda: _part_of_salt(0, 2),
    "wire": lambda: _part_of_salt(0, 0, 2),
    "charged-slab": lambda: _part_of_salt(1, 1),
    "charged-wire": lambda: _part_of_salt(-1, 1, 2),
}


def tiny_potential(**settings: object) -> Potential:
    """Random weights in float64, and sums that are exact to rounding."""
    defaults = {
        "elements": ELEMENTS,
        "channels": 4,
        "cutoff": 4.0,
        "force_accuracy": 1e-11,
        "average_neighbors": 20.0,
    }
    return build_potential(flat_config(**{**defaults, **settings}), seed=1).double()


def evaluator(potential: Potential) -> Callable[[Atoms], Evaluation]:
    """Evaluate one ASE structure with a potential, without the ASE calculator."""

    def evaluate(atoms: Atoms) -> Evaluation:
        graph = potential.prepare(from_ase(atoms, potential.cutoff))
        result = predict(potential, graph, stress=bool(atoms.pbc.all()))
        return Evaluation(
            energy=float(result.energy),
            forces=result.forces.numpy(),
            stress=result.stress[0].numpy() if result.stress is not None else None,
            charges=result.charges.numpy() if result.charges is not None else None,
        )

    return evaluate
