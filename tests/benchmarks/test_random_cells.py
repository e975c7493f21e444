"""Is the force error of any structure below the one asked for? `make bench ARGS="-k random_cells"`.

Random triclinic cells, periodic along any axes, charged and neutral, with equal and unequal
Gaussian widths. The table shows the achieved rms force error as a part of `force_accuracy`: 1 is
the promise, what is far below it is work done for nothing.
"""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.geometry import cellpar_to_cell
from torch import Tensor

from phicalc.electrostatics import CoulombSettings, CoulombSum, plan_coulomb
from phicalc.electrostatics.sums.settings import Method
from phicalc.graph import from_ase

CASES = 50
ADVERSARIAL_CASES = 400
ACCURACIES = (1e-3, 1e-5, 1e-7)
METHODS: tuple[Method, ...] = ("ewald", "mesh")
#: Ions per Å³, and the least distance in Å of opposite faces of a cell.
DENSITY, THINNEST = 0.05, 2.5


class Case(NamedTuple):
    """A structure with its charges in e and Gaussian widths in Å."""

    atoms: Atoms
    charges: Tensor
    smearing: Tensor

    def __str__(self) -> str:
        """One line: ions, periodic axes, net charge, range of widths, shortest cell height."""
        axes = "".join(axis if p else "-" for axis, p in zip("abc", self.atoms.pbc, strict=True))
        low, high = float(self.smearing.min()), float(self.smearing.max())
        heights = 1 / np.linalg.norm(np.linalg.inv(self.atoms.cell.array), axis=0)
        return (
            f"{len(self.atoms):4d} {axes} {float(self.charges.sum()):+7.2f}"
            f" {low:5.2f}-{high:4.2f} {heights.min():6.1f}"
        )


def random_case(number: int) -> Case:
    """Make the case of this number; every other one is periodic along all axes."""
    rng = np.random.default_rng([20260101, number])
    n_ions = round(math.exp(rng.uniform(math.log(2), math.log(500))))
    heights = np.zeros(3)
    while heights.min() < THINNEST:
        cell = rng.normal(size=(3, 3))
        cell *= (n_ions / DENSITY / abs(np.linalg.det(cell))) ** (1 / 3)
        heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    pbc = np.ones(3, dtype=bool) if number % 2 else rng.random(3) < 0.5
    places = rng.random((n_ions, 3))
    atoms = Atoms(f"H{n_ions}", cell=cell, pbc=pbc, scaled_positions=places)
    charges = rng.normal(size=n_ions)
    if number % 4 < 2:
        charges -= charges.mean()
    widths = rng.uniform(0.3, 1.5, n_ions if number % 3 else 1) * np.ones(n_ions)
    return Case(atoms, torch.as_tensor(charges), torch.as_tensor(widths))


def forces(case: Case, settings: CoulombSettings) -> Tensor:
    """Return the forces on the ions in eV/Å."""
    graph = plan_coulomb(from_ase(case.atoms, 1.0), case.smearing, settings, case.charges)
    graph = graph._replace(positions=graph.positions.requires_grad_())
    energy = CoulombSum(graph, case.smearing).energy(case.charges).sum()
    (gradient,) = torch.autograd.grad(energy, [graph.positions])
    return -gradient


def exact_forces(case: Case) -> Tensor:
    """Sum all pairs of open structures; the tightest Ewald sum for others."""
    method: Method = "ewald" if case.atoms.pbc.any() else "direct"
    return forces(case, CoulombSettings(1e-10, method))


def test_random_cells_are_as_accurate_as_asked() -> None:
    labels = [f"{m} {a:.0e}" for a in ACCURACIES for m in METHODS]
    print("\nrms force error as a part of the accuracy asked for")
    print(f"{'case':>4} {'ions':>4} pbc  charge {'widths':>10} height", end="")
    print("".join(f"{label:>12}" for label in labels))
    ratios = np.zeros((CASES, len(labels)))
    for number in range(CASES):
        case = random_case(number)
        exact = exact_forces(case)
        for accuracy_index, accuracy in enumerate(ACCURACIES):
            for method_index, method in enumerate(METHODS):
                difference = forces(case, CoulombSettings(accuracy, method)) - exact
                rms = float(difference.square().sum(1).mean().sqrt())
                ratios[number, accuracy_index * len(METHODS) + method_index] = rms / accuracy
        columns = "".join(f"{ratio:12.4f}" for ratio in ratios[number])
        print(f"{number:4d} {case}{columns}", flush=True)
    for name, row in (("median", np.median(ratios, axis=0)), ("largest", ratios.max(axis=0))):
        print(f"{name:>36}" + "".join(f"{ratio:12.4f}" for ratio in row))
    missed = [
        f"case {number}, {labels[column]}: {ratios[number, column]:.2f} times"
        for number, column in np.argwhere(ratios > 1)
    ]
    if missed:
        pytest.fail("larger errors than asked for: " + "; ".join(missed))


def adversarial_case(number: int) -> tuple[Case, float, Method]:
    """Return what sums find hardest, with an accuracy in eV/Å and a method.

    Cells of aspect up to 30:1 with angles of 20 to 150 degrees, ions in planes, clumps and pairs,
    like charges, widths of 0.05 to 3 Å.
    """
    rng = np.random.default_rng([20261128, number])
    n_ions = round(math.exp(rng.uniform(math.log(2), math.log(60))))
    aspect = math.exp(rng.uniform(0, math.log(30)))
    cell = np.zeros((3, 3))
    while not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-3:
        angles = rng.choice([20.0, 35.0, 60.0, 90.0, 120.0, 150.0], 3)
        with np.errstate(invalid="ignore"), contextlib.suppress(AssertionError):
            cell = cellpar_to_cell([1.0, rng.choice([1.0, aspect]), aspect, *angles])
    density = math.exp(rng.uniform(math.log(0.005), math.log(0.1)))
    cell *= (n_ions / density / abs(np.linalg.det(cell))) ** (1 / 3)
    positions = rng.random((n_ions, 3)) * [1.0, 1.0, rng.choice([1.0, 0.02])] @ cell
    if rng.random() < 0.5:  # pairs
        positions[: n_ions // 2] = positions[-(n_ions // 2) :] + 0.6 * rng.normal(size=3)
    charges = (
        rng.normal(size=n_ions) ** rng.choice([1, 3]) if rng.random() < 0.5 else np.ones(n_ions)
    )
    if rng.random() < 0.3:
        charges = charges * (-1.0) ** np.arange(n_ions)
    widths = np.exp(rng.uniform(math.log(0.05), math.log(3.0), rng.choice([1, n_ions])))
    pbc = np.ones(3, dtype=bool) if number % 2 else rng.random(3) < 0.6
    atoms = Atoms(f"H{n_ions}", cell=cell, pbc=pbc, positions=positions)
    case = Case(atoms, torch.as_tensor(charges), torch.as_tensor(widths * np.ones(n_ions)))
    return case, float(rng.choice([1e-1, 1e-2, 1e-3, 1e-4])), rng.choice(METHODS)


def test_adversarial_cells_are_as_accurate_as_asked() -> None:
    ratios, largest = [], []
    for number in range(ADVERSARIAL_CASES):
        case, accuracy, method = adversarial_case(number)
        exact = forces(case, CoulombSettings(1e-4 * accuracy, "ewald"))
        difference = forces(case, CoulombSettings(accuracy, str(method))) - exact
        ratios.append(float(difference.square().sum(1).mean().sqrt()) / accuracy)
        largest.append(float(difference.abs().max()) / accuracy)
        if ratios[-1] > 0.5:
            print(f"{number:4d} {case} {method} {accuracy:.0e}: {ratios[-1]:.2f}", flush=True)
    print(
        f"\n{len(ratios)} adversarial cells, rms error as a part of the accuracy asked for: median "
        f"{np.median(ratios):.3f}, largest {max(ratios):.3f}; largest component {max(largest):.2f}"
    )
    assert max(ratios) < 1
