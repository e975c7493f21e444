"""Every head fulfils the contract, charged, in every boundary condition of its sums."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from phicalc import testing
from phicalc.testing import CONTRACT, Evaluation, from_calculator

from .conftest import HEADS, STRUCTURES, evaluator, tiny_potential

#: A charged structure shows all that a neutral one would. Open axes concern the sums alone: one
#: head of each kind of sums sees them.
OPEN_AXES = ("acks2", "qeq", "latent", "solve+coulomb", "dispersion")
CASES = [(head, kind) for head in HEADS for kind in ("cation", "charged-crystal")] + [
    (head, kind) for head in OPEN_AXES for kind in ("charged-slab", "charged-wire")
]


#: Heads whose charges sum to zero whatever the total charge is; and one that knows no parts.
LIMITS = {
    ("spectral", testing.check_total_charge): lambda atoms: atoms.info["charge"] != 0,
    ("dirichlet", testing.check_total_charge): lambda atoms: atoms.info["charge"] != 0,
    ("spectral", testing.check_supercell): lambda atoms: atoms.pbc.all(),
}


@cache
def evaluator_of(head: str) -> Callable[[Atoms], Evaluation]:
    """Evaluate a structure once for all checks."""
    evaluate, known = evaluator(tiny_potential(**HEADS[head])), {}

    def remember(atoms: Atoms) -> Evaluation:
        arrays = (atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
        key = (*(array.tobytes() for array in arrays), atoms.info["charge"])
        if key not in known:
            known[key] = evaluate(atoms)
        return known[key]

    return remember


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("head", "kind"), CASES)
def test_every_head_fulfils_the_contract(check: Callable, head: str, kind: str) -> None:
    atoms = STRUCTURES[kind]()
    limited = LIMITS.get((head, check))
    if limited is None or not limited(atoms):
        check(evaluator_of(head), atoms)
        return
    with pytest.raises(AssertionError):  # a documented limit of this head
        check(evaluator_of(head), atoms)


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_ase_calculators_can_be_checked(check: Callable) -> None:
    atoms = STRUCTURES["crystal"]()
    evaluate = from_calculator(LennardJones(sigma=2.3, epsilon=0.3, rc=9.0, smooth=True))
    check(evaluate, atoms, tolerance=1e-5)


def _broken(change: Callable[[Atoms, Evaluation], Evaluation]) -> Callable[[Atoms], Evaluation]:
    """Lennard-Jones with one thing wrong."""
    sound = from_calculator(LennardJones(sigma=2.3, epsilon=0.3, rc=9.0, smooth=True))

    def evaluate(atoms: Atoms) -> Evaluation:
        result = sound(atoms)._replace(charges=np.sign(atoms.numbers - 14) * 0.5)
        return change(atoms, result)

    return evaluate


BROKEN = {
    "check_permutation": lambda a, e: e._replace(energy=e.energy + a.positions[0].sum()),
    "check_rotation": lambda a, e: e._replace(forces=e.forces + [0, 0, 0.1]),
    "check_translation": lambda a, e: e._replace(energy=e.energy + a.positions.sum()),
    "check_left_handed_cell": lambda a, e: e._replace(
        stress=e.stress * np.sign(np.linalg.det(a.cell))
    ),
    "check_supercell": lambda a, e: e._replace(energy=e.energy + len(a) ** 2),
    "check_forces": lambda a, e: e._replace(forces=e.forces * 1.001),
    "check_stress": lambda a, e: e._replace(stress=-e.stress),
    "check_net_force": lambda a, e: e._replace(forces=e.forces + 0.01),
    "check_total_charge": lambda a, e: e._replace(charges=e.charges + 0.01),
}


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_each_check_catches_what_it_is_for(check: Callable) -> None:
    atoms = STRUCTURES["crystal"]()
    evaluate = _broken(BROKEN[check.__name__])
    with pytest.raises(AssertionError, match=r"deviates|finite differences"):
        check(evaluate, atoms, tolerance=1e-4)


def test_contract_lists_every_check() -> None:
    checks = {name for name in vars(testing.physics) if name.startswith("check_")}
    assert checks == {check.__name__ for check in CONTRACT} == set(BROKEN)
