"""Nanoseconds of every part of a Coulomb sum: `make bench ARGS="-k coulomb_costs"`.

Fits the costs with which `phicalc.electrostatics.sums.choice` compares sums to measured times of
energy and forces.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from ase.build import bulk
from scipy.optimize import nnls

from phicalc.electrostatics import CoulombSettings, CoulombSum, plan_coulomb
from phicalc.electrostatics.sums import choice
from phicalc.graph import AtomicGraph, from_ase
from phicalc.system import keep_freed_memory


def seconds(graph: AtomicGraph, smearing: torch.Tensor, charges: torch.Tensor) -> float:
    """Least CPU time of energy and forces."""
    best = np.inf
    for _ in range(5):
        positions = graph.positions.clone().requires_grad_()
        start = time.process_time()
        energy = CoulombSum(graph._replace(positions=positions), smearing).energy(charges).sum()
        torch.autograd.grad(energy, positions)
        best = min(best, time.process_time() - start)
    return best


def test_coulomb_costs() -> None:
    keep_freed_memory()
    rows, times = [], []
    for repeat in (4, 6, 8):
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
        atoms.rattle(0.05, seed=1)
        charges = torch.from_numpy(np.where(atoms.numbers == 11, 1.0, -1.0))
        smearing = torch.full((len(atoms),), 0.1, dtype=torch.float64)
        for cutoff in (4.0, 6.0, 9.0):
            for settings in (
                CoulombSettings(1e-4, "ewald", real_cutoff=cutoff),
                CoulombSettings(1e-4, "mesh", real_cutoff=cutoff, spline_order=5),
                CoulombSettings(1e-4, "mesh", real_cutoff=cutoff, spline_order=7),
            ):
                if settings.method == "ewald" and (repeat > 4 or cutoff < 6.0):
                    continue  # so many waves are nobody's choice
                graph = plan_coulomb(from_ase(atoms, 1.0), smearing, settings, charges)
                plan = graph.coulomb
                assert plan is not None
                a, b, c, order = plan.mesh[0].tolist() if plan.mesh is not None else (0, 0, 0, 0)
                n = len(atoms)
                rows.append([plan.pair_index.shape[1], n * plan.kvectors.shape[1], n * order**3,
                             a * b * c, float(order > 0)])  # fmt: skip
                times.append(seconds(graph, smearing, charges))
    # Relative errors count alike, small structures as much as large ones.
    weights = 1 / np.array(times)
    costs, _ = nnls(np.array(rows) * weights[:, None], np.ones(len(times)))
    assumed = (choice.PAIR_COST, choice.WAVE_COST, choice.SPREAD_COST, choice.POINT_COST,
               choice.MESH_COST)  # fmt: skip
    print()
    for name, cost, old in zip(("pair", "wave", "share", "point", "mesh"), costs, assumed,
                               strict=True):  # fmt: skip
        print(f"  {name:<6} {1e9 * cost:12.1f} ns   assumed {old:12.1f}")
    predicted = np.array(rows) @ costs
    assert np.abs(np.log(predicted / times)).max() < np.log(2.5)
