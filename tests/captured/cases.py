"""Potentials and structures that a GPU may record."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch.fx.experimental.proxy_tensor import make_fx

from phicalc.captured.predictor import CapturedPredictor
from phicalc.captured.room import Room
from phicalc.captured.step import StaticStep
from phicalc.derivatives import Prediction, predict
from phicalc.graph import AtomicGraph, from_ase
from phicalc.potential import Potential, build_potential
from phicalc.structures import water_box

from ..tiny import flat_config

#: Heads whose charges can be found without looking at any number.
HEADS = ("none", "latent", "latent+links", "qeq", "acks2")


def salt(seed: int = 1) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.1, seed=seed)
    return atoms


def ion() -> Atoms:
    atoms = molecule("H2O")
    atoms.append("H")
    atoms.positions[-1] = atoms.positions[0] + (0.0, 0.3, 0.9)
    atoms.info["charge"] = 1
    return atoms


def film() -> Atoms:
    """Periodic along two axes, without a third vector."""
    atoms = salt()
    atoms.pbc = (True, True, False)
    atoms.cell[2] = 0
    return atoms


STRUCTURES = {
    "salt": salt,
    "water": lambda: water_box(8, seed=1),
    "molecule": lambda: molecule("CH3CH2OH"),
    "ion": ion,
    "film": film,
}


def make_potential(head: str, atoms: Atoms, **settings: Any) -> Potential:
    """Random weights in double precision, with walls and dispersion."""
    settings = {"repulsion": "zbl", "dispersion": "learned", **settings}
    config = flat_config(
        elements=tuple(sorted(set(atoms.get_chemical_symbols()))), average_neighbors=6.0, head=head,
        **{"cutoff": 3.5, "layers": 1, "channels": 4, "l_max": 1, "correlation": 1, **settings},
    )  # fmt: skip
    return build_potential(config, seed=3).double().eval().requires_grad_(False)


def prepared(potential: Potential, atoms: Atoms) -> AtomicGraph:
    """Graph of a structure, ready for the potential."""
    return potential.prepare(from_ase(atoms, potential.cutoff))


def expected(potential: Potential, atoms: Atoms) -> Prediction:
    """Predict by plain torch, stress included where there is one."""
    return predict(potential, prepared(potential, atoms), stress=bool(atoms.pbc.all()))


def assert_same(found: Prediction, plain: Prediction, tolerance: float = 1e-11) -> None:
    for name in ("energy", "atomic_energies", "forces", "stress", "charges", "last_features"):
        mine, theirs = getattr(found, name), getattr(plain, name)
        assert (mine is None) == (theirs is None), name
        if theirs is not None:
            scale = max(1.0, float(theirs.abs().max()))
            torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * scale, msg=name)
    assert list(found.terms) == list(plain.terms)


class ReplayedStep(StaticStep):
    """A recording without a GPU: a list of operations on the same places, done again.

    As there, whatever Python decided while it was recorded stays decided.
    """

    def __init__(
        self, potential: Potential, graph: AtomicGraph, room: Room, like: Prediction, fuse: bool
    ) -> None:
        super().__init__(potential, graph, room, like, False)
        self.function = make_fx(self.function)(*self.tensors())
        self.addresses = [each.data_ptr() for each in self.tensors()]

    def run(self) -> Any:
        assert self.addresses == [each.data_ptr() for each in self.tensors()]
        return super().run()


class ReplayedPredictor(CapturedPredictor):
    """Records without a GPU."""

    step = ReplayedStep


def moves(atoms: Atoms, n: int, seed: int = 0) -> list[Atoms]:
    """Structures that a simulation might come to."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        atoms = atoms.copy()
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        if atoms.pbc.all():
            atoms.set_cell(atoms.cell * (1 + rng.normal(scale=0.01)), scale_atoms=True)
        found.append(atoms)
    return found
