"""Which pairs and which k vectors an electrostatic sum contains, chosen from one tolerance."""

import math

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.graph import AtomicGraph, CoulombPlan, collate, slots
from phicalc.neighbors import neighbor_list

#: Cost of one pair of the real-space sum over the cost of one (atom, k vector) of the other.
PAIR_COST = 2.0


def plan_coulomb(
    graph: AtomicGraph,
    smearing: Float64[Tensor, " n_atoms"],
    tolerance: float,
    splitting: float | None = None,
) -> AtomicGraph:
    """Return `graph` with the plan of its electrostatic sums.

    Open structures sum all pairs directly. Three-dimensional cells get an Ewald sum whose
    real-space cutoff and k cutoff both truncate a Gaussian tail at `tolerance`.

    Parameters
    ----------
    graph
        Batch of structures, each open (no periodic direction) or periodic in all three.
    smearing
        Gaussian widths σ of the atoms in Å.
    tolerance
        Relative size of the neglected terms, between 1e-15 and 0.1.
    splitting
        Ewald parameter α in 1/Å; by default the one that balances the two sums.

    Raises
    ------
    NotImplementedError
        For structures that are periodic in one or two directions.
    ValueError
        For a tolerance out of range or widths that are not positive.
    """
    if not 1e-15 <= tolerance <= 0.1:
        raise ValueError(f"tolerance must lie between 1e-15 and 0.1, got {tolerance}")
    if not bool((smearing > 0).all()):
        raise ValueError("smearing must be positive for every atom: it is a Gaussian width in Å")
    plans = []
    for structure in range(graph.n_structures):
        atoms = graph.batch == structure
        single = AtomicGraph(
            positions=graph.positions[atoms].detach(),
            atomic_numbers=graph.atomic_numbers[atoms],
            cell=graph.cell[structure : structure + 1].detach(),
            pbc=graph.pbc[structure : structure + 1],
            batch=graph.batch.new_zeros(int(atoms.sum())),
            edge_index=graph.edge_index[:, :0],
            edge_shifts=graph.edge_shifts[:0],
            total_charge=graph.total_charge[structure : structure + 1],
        )
        plan = _plan_structure(single, smearing[atoms].detach(), tolerance, splitting)
        plans.append(single._replace(coulomb=plan))
    if len(plans) == 1:
        return graph._replace(coulomb=plans[0].coulomb)
    return graph._replace(coulomb=collate(plans).coulomb)


def _plan_structure(
    graph: AtomicGraph, smearing: Tensor, tolerance: float, splitting: float | None
) -> CoulombPlan:
    """Plan one structure by its boundary conditions."""
    n_periodic = int(graph.pbc.sum())
    if n_periodic in (1, 2):
        raise NotImplementedError(
            f"electrostatics of structures that are periodic in {n_periodic} of 3 directions is "
            f"not available (pbc = {graph.pbc[0].tolist()}). Use pbc=False for a molecule, "
            "pbc=True with enough vacuum for a slab or a wire, or a model without electrostatics"
        )
    if n_periodic == 0 or graph.n_atoms == 0:
        return _direct_plan(graph)
    return _ewald_plan(graph, smearing, tolerance, splitting)


def _direct_plan(graph: AtomicGraph) -> CoulombPlan:
    """All pairs, no images, no reciprocal part."""
    n_atoms, device = graph.n_atoms, graph.positions.device
    pairs = torch.triu_indices(n_atoms, n_atoms, offset=1, device=device)
    kvectors = torch.zeros((1, 0, 3), dtype=torch.int64, device=device)
    shifts = torch.zeros((pairs.shape[1], 3), dtype=torch.int64, device=device)
    alpha = torch.zeros(1, dtype=torch.float64, device=device)
    return CoulombPlan(pairs, shifts, kvectors, alpha, *slots(graph.batch, 1))


def _ewald_plan(
    graph: AtomicGraph, smearing: Tensor, tolerance: float, splitting: float | None
) -> CoulombPlan:
    """Pairs within the real-space cutoff, and k vectors within half a sphere (by symmetry)."""
    cell = graph.cell[0]
    decay = math.sqrt(-math.log(tolerance))  # exp(-decay²) = tolerance
    volume = abs(float(torch.linalg.det(cell)))
    alpha = splitting or _balanced_splitting(graph.n_atoms, volume)
    # The real-space sum must reach the end of both tails: the split's and the widest Gaussian's.
    width = math.sqrt(2) * float(smearing.max())
    cutoff = decay * max(1 / alpha, math.sqrt(2) * width)
    pairs = neighbor_list(graph.positions, cell, graph.pbc[0], cutoff, half=True)
    kvectors = _half_sphere(cell.cpu().numpy(), 2 * alpha * decay)
    return CoulombPlan(
        pairs.edge_index,
        pairs.edge_shifts,
        torch.as_tensor(kvectors, device=cell.device)[None],
        torch.full((1,), alpha, dtype=torch.float64, device=cell.device),
        *slots(graph.batch, 1),
    )


def _balanced_splitting(n_atoms: int, volume: float) -> float:
    """Ewald's α for which the real-space and the reciprocal sum cost the same.

    At decay s, N atoms have ``(2π/3)(s/α)³ N²/V`` pairs and ``N V (2sα)³/12π²`` phases;
    Perram, Petersen & De Leeuw, Mol. Phys. 65, 875 (1988).
    """
    return (PAIR_COST * math.pi**3 * n_atoms / volume**2) ** (1 / 6)


def _half_sphere(cell: np.ndarray, k_cutoff: float) -> np.ndarray:
    """Miller indices of the k vectors with 0 < |k| ≤ `k_cutoff`, one of each ±k."""
    limits = np.floor(k_cutoff * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    h = np.arange(0, limits[0] + 1)
    k, m = (np.arange(-limit, limit + 1) for limit in limits[1:])
    grid = np.stack(np.meshgrid(h, k, m, indexing="ij"), axis=-1).reshape(-1, 3)
    first, second, third = grid.T
    half = (first > 0) | ((first == 0) & ((second > 0) | ((second == 0) & (third > 0))))
    grid = grid[half]
    vectors = 2 * np.pi * grid @ np.linalg.inv(cell).T
    return grid[np.linalg.norm(vectors, axis=1) <= k_cutoff].astype(np.int64)
