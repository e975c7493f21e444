"""Structures and conditions that no user means, through calculators of many models."""

import re
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
from ase import Atoms

from phicalc import PhiCalculator, from_ase
from tools.fuzz.changes import CHANGES, Subject
from tools.fuzz.models import SHIPPED, TINY, check_results, config_of, source_of, water
from tools.fuzz.verdicts import Case, Unsound

COUNT = 2600

#: What an error of the constructor has to name: nothing else can be refused before.
_PARAMETER = re.compile(r"(?:parameter )?(total_charge|electrode_potential|(?<=parameter )\w+)")
#: Heads whose charges follow the total charge.
_CONSERVING = ("qeq", "latent", "solve", "solve+coulomb")


def make_case(seed: int) -> Case:
    """Make the case of a seed."""
    rng = np.random.default_rng([1, seed])
    names = SHIPPED if seed % 7 == 0 else tuple(TINY)
    model = names[rng.integers(len(names))]
    atoms = _base(rng, config_of(model).elements)
    subject = Subject(atoms, {"compile": False}, rng, [])
    chosen = rng.choice(len(CHANGES), size=rng.choice([1, 1, 1, 2, 3]), replace=False)
    words = [CHANGES[index](subject) for index in sorted(chosen)]
    action = ACTIONS[rng.integers(len(ACTIONS))]
    oddities = "; ".join(filter(None, words)) or "nothing odd"
    text = f"{model}, {len(atoms)} atoms, pbc {atoms.pbc.tolist()}: {oddities} → {action}"
    refused = "; ".join(subject.must_refuse)
    kind = (
        refused or ", ".join(re.split(r" ?[\[=\d]", word)[0] for word in words if word) or "plain"
    )
    named = _PARAMETER.match(refused) if len(chosen) == 1 else None
    return Case(
        kind,
        text,
        lambda: _run(model, subject, action),
        must_refuse=bool(refused),
        names=(named[1],) if named else (),
    )


def _run(model: str, subject: Subject, action: str) -> None:
    atoms = subject.atoms
    calculator = PhiCalculator(source_of(model), **subject.parameters)
    survivor = model in TINY and subject.rng.random() < 0.3
    known = _energy_of_known(model, calculator) if survivor else None
    try:
        results = _act(calculator, atoms, action)
        check_results(results, np.asarray(atoms.numbers), config_of(model))
        _check_charge(results, calculator, atoms, model)
    finally:
        if known is not None and abs(_energy_of_known(model, calculator) - known) > 1e-5:
            raise Unsound("after this input the calculator gives another energy")


def _energy_of_known(model: str, calculator: PhiCalculator) -> float | None:
    """Energy of a harmless structure, or None where the parameters of the calculator forbid it."""
    atoms = water(2)
    if "O" not in config_of(model).elements:
        return None
    with suppress(Exception):
        calculator.calculate(atoms, ["energy"])
        return float(calculator.results["energy"])
    return None


def _act(calculator: PhiCalculator, atoms: Atoms, action: str) -> dict[str, Any]:
    """Ask for something; returns results as the calculator does."""
    if action == "batch":
        return calculator.batch([atoms, atoms.copy()], stress=True)[1]
    atoms.calc = calculator
    if action == "graph":
        from_ase(atoms, 3.0)
    elif action.startswith("get_"):
        value = getattr(calculator, action)(atoms)
        if not np.all(np.isfinite(value)):
            raise Unsound(f"{action} is not finite")
    else:
        calculator.get_property(action, atoms)
    atoms.get_potential_energy()
    calculator.get_property("forces", atoms)
    return dict(calculator.results)


def _check_charge(
    results: dict[str, Any], calculator: PhiCalculator, atoms: Atoms, model: str
) -> None:
    """Raise `Unsound` if charges do not sum to the total charge that was asked for."""
    wanted = calculator.parameters["total_charge"]
    wanted = atoms.info.get("charge", 0.0) if wanted is None else wanted
    free = calculator.parameters["electrode_potential"] is not None or any(
        atoms.info.get(key) is not None
        for key in ("electrode_potential", "fragment_potentials", "fragment_charges")
    )
    if "charges" not in results or free or config_of(model).head not in _CONSERVING:
        return
    found = float(np.sum(results["charges"]))
    if len(atoms) and abs(found - float(wanted)) > 1e-3 * max(1.0, abs(float(wanted))):
        raise Unsound(f"charges sum to {found:.3g} e")


ACTIONS = ("energy", "energy", "forces", "stress", "stress", "charges", "dipole", "energies",
           "batch", "batch", "graph", "get_polarizability", "get_born_effective_charges",
           "get_electrode_potentials", "get_electrostatic_potential")  # fmt: skip


def _base(rng: np.random.Generator, elements: tuple[str, ...]) -> Atoms:
    """Return an innocent structure, of the elements that a model knows."""
    kind = rng.integers(6)
    if kind == 0 and {"H", "O"} <= set(elements):
        return water(int(rng.integers(1, 4)))
    if kind == 1:
        symbols = [elements[0], elements[-1]]
        return Atoms(symbols * 4, _grid(8, 2.6), cell=[5.2] * 3, pbc=True)
    if kind == 2:
        return Atoms([elements[rng.integers(len(elements))]], [rng.normal(size=3)])
    n_atoms = int(rng.integers(2, 24))
    symbols = [elements[i] for i in rng.integers(len(elements), size=n_atoms)]
    positions = _grid(n_atoms, 1.9) + rng.normal(scale=0.15, size=(n_atoms, 3))
    pbc = rng.random(3) < 0.5
    return Atoms(symbols, positions, cell=np.diag(rng.uniform(5.7, 9.0, size=3)), pbc=pbc)


def _grid(n_atoms: int, spacing: float) -> np.ndarray:
    points = np.array(list(product(range(3 if n_atoms > 8 else 2), repeat=3)), dtype=float)
    return points[:n_atoms] * spacing
