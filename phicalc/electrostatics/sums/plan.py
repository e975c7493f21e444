"""Which pairs and which k vectors an electrostatic sum contains, and when that has to change."""

import math

import numpy as np
import torch
from ase.geometry import minkowski_reduce
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from phicalc.electrostatics.sums.boundary import complete_box
from phicalc.electrostatics.sums.choice import choose, estimate, least_open_length, survey
from phicalc.electrostatics.sums.crowding import crowding
from phicalc.electrostatics.sums.settings import CoulombSettings, SumParameters
from phicalc.graph import AtomicGraph, CoulombPlan, collate
from phicalc.neighbors import points_forward
from phicalc.skin import NeighborSearch

#: Parameters are chosen anew when the edges of the cell have changed by more than this.
_STRETCH = 0.15
#: They are chosen anew, too, when the estimated error exceeds this part of the accuracy: errors of
#: single structures exceed their estimates by up to this much.
_TOLERATED = 0.5


def plan_coulomb(
    graph: AtomicGraph,
    smearing: Float64[Tensor, " n_atoms"],
    settings: CoulombSettings | None = None,
    charges: Float64[Tensor, " n_atoms"] | None = None,
) -> AtomicGraph:
    """Return `graph` with the plan of its electrostatic sums.

    Parameters
    ----------
    graph
        Batch of structures, periodic along any axes.
    smearing
        Gaussian widths σ of the atoms in Å.
    settings
        Accuracy and method; the defaults of `CoulombSettings` if left out.
    charges
        Charges in e by which the error is judged; by default ``settings.charge_scale`` each.

    Raises
    ------
    ValueError
        For widths that are not positive, charges that are not finite, or settings that are
        impossible for a structure.
    """
    return CoulombPlanner(settings or CoulombSettings()).plan(graph, smearing, charges)


class CoulombPlanner:
    """Plans electrostatic sums; remembers the parameters of the last structure while they hold.

    In a simulation parameters stay as they are (k vectors as integers, mesh shapes, splitting), so
    that the energy is a smooth function of the cell. They are chosen anew only when the accuracy
    asked for is no longer reached, or the cell has changed so much that they have become wasteful.

    Parameters
    ----------
    settings
        Accuracy and method.
    mesh_above
        Structures of at most so many atoms are summed without a mesh, unless
        ``settings.method`` says otherwise.
    applications
        How often larger structures are summed with other charges in the same geometry, as
        iterative solvers do: parameters are chosen for the least time in all.
    narrower
        Whether plans shall serve all Gaussians narrower than those they are made for, too.
    """

    def __init__(
        self,
        settings: CoulombSettings,
        mesh_above: int = 0,
        applications: int = 0,
        narrower: bool = False,
    ):
        self.settings = settings
        self.mesh_above, self.applications = mesh_above, applications
        self.narrower = narrower
        self.parameters: SumParameters | None = None
        self.changes = 0
        self._charge = settings.charge_scale
        self._basis = torch.eye(3, dtype=torch.int64)
        self._kvectors = torch.zeros((0, 3), dtype=torch.int64)
        self._reference: tuple[Tensor, ...] = ()
        self._good_for, self._good_cell = 0.0, torch.zeros(3, 3, dtype=torch.float64)
        self._crowding: tuple[float, ...] | None = None
        self._search = NeighborSearch(0.0, half=True)

    def plan(
        self,
        graph: AtomicGraph,
        smearing: Float64[Tensor, " n_atoms"],
        charges: Float64[Tensor, " n_atoms"] | None = None,
    ) -> AtomicGraph:
        """Return `graph` with the plan of its electrostatic sums (see `plan_coulomb`).

        Gaussian widths are in Å, charges in e.

        Raises
        ------
        ValueError
            For widths that are not positive, or charges that are not finite.
        """
        if not bool((smearing > 0).all()) or not bool(smearing.isfinite().all()):
            raise ValueError(
                "smearing must be positive for every atom: it is a Gaussian width in Å"
            )
        if charges is not None and not bool(charges.isfinite().all()):
            raise ValueError("charges must be finite numbers (e), got NaN or infinity")
        plans = []
        for structure in range(graph.n_structures):
            if graph.n_structures > 1:  # what a batch gives does not depend on its order
                self.parameters = None
            atoms = graph.batch == structure
            single = _single(graph, structure, atoms)
            charge = self._charge_scale(graph, charges, atoms) if single.n_atoms else 1.0
            plan = self._plan_structure(single, smearing[atoms].detach(), charge)
            plans.append(single._replace(coulomb=plan))
        if len(plans) == 1:
            return graph._replace(coulomb=plans[0].coulomb)
        return graph._replace(coulomb=collate(plans).coulomb)

    def underrated(self, charges: Float64[Tensor, " n_atoms"]) -> bool:
        """Whether these charges (e) are larger than the last plan can bear.

        The margin in its parameters makes up for charges of twice the size.
        """
        return len(charges) > 0 and _mean_size(charges) > 2 * self._charge

    def _charge_scale(
        self,
        graph: AtomicGraph,
        charges: Float64[Tensor, " n_atoms"] | None,
        atoms: Bool[Tensor, " n_atoms"],
    ) -> float:
        """Root mean square charge by which errors are judged, in e."""
        if charges is not None:
            return _mean_size(charges[atoms])
        if graph.charge_guess is None:
            return self.settings.charge_scale
        # A little more than the charges of the last step: they may have grown meanwhile.
        return max(self.settings.charge_scale, 1.1 * _mean_size(graph.charge_guess[atoms]))

    def _plan_structure(
        self, graph: AtomicGraph, smearing: Float64[Tensor, " n"], charge: float
    ) -> CoulombPlan:
        """Plan one structure."""
        cell, pbc = graph.cell[0], graph.pbc[0]
        self._charge = charge
        structure = (graph.positions, cell, pbc, smearing, charge)
        parameters = self._still_good(*structure) or self._choose(*structure)
        if parameters.method == "direct":
            return _direct_plan(graph)
        return self._periodic_plan(graph, parameters)

    def _choose(
        self,
        positions: Float64[Tensor, "n 3"],
        cell: Float64[Tensor, "3 3"],
        pbc: Bool[Tensor, "3"],
        smearing: Float64[Tensor, " n"],
        charge: float,
    ) -> SumParameters:
        """Choose parameters and remember what for."""
        settings = self.settings
        with_mesh = len(positions) > self.mesh_above
        self._basis = short_basis(cell, pbc)
        cell = self._basis.to(cell) @ cell
        applications = self.applications if with_mesh else 0
        parameters = choose(
            positions, cell, pbc, smearing, charge, settings, with_mesh, applications,
            self.narrower,
        )  # fmt: skip
        self.parameters, self._reference = parameters, (cell, pbc, smearing)
        self._good_for, self._crowding = 0.0, None
        self._search = NeighborSearch(parameters.real_cutoff, half=True)
        self.changes += 1
        if parameters.method == "ewald":
            box = complete_box(cell, pbc, parameters.open_length).cpu().numpy()
            millers = _half_sphere(box, parameters.k_cutoff)
            self._kvectors = torch.as_tensor(millers, device=cell.device)
        return parameters

    def _still_good(
        self,
        positions: Float64[Tensor, "n 3"],
        cell: Float64[Tensor, "3 3"],
        pbc: Bool[Tensor, "3"],
        smearing: Float64[Tensor, " n"],
        charge: float,
    ) -> SumParameters | None:
        """Return the parameters of the last structure if they serve this one."""
        parameters = self.parameters
        if parameters is None:
            return None
        old_cell, old_pbc, old_smearing = self._reference
        if not (torch.equal(pbc, old_pbc) and torch.equal(smearing, old_smearing)):
            return None
        if parameters.method == "direct":
            return parameters
        length, error = parameters.open_length, self.settings.force_accuracy
        if not length and charge <= self._good_for and torch.equal(cell, self._good_cell):
            return parameters
        vectors = self._basis.to(cell) @ cell
        box, old_box = (complete_box(each, pbc, length) for each in (vectors, old_cell))
        stretches = torch.linalg.svdvals(torch.linalg.solve(old_box, box))
        least, most = float(stretches.min()), float(stretches.max())
        if self._crowding is None:
            self._crowding = crowding(positions, vectors, pbc)
        ions = survey(positions, vectors, pbc, smearing, charge, self._crowding)
        fits = not length or length >= least_open_length(ions, parameters.splitting, error)
        errors = self._unintended(estimate(parameters, ions, box, most))
        accurate = math.hypot(*errors) <= _TOLERATED * error
        if least > 1 - _STRETCH and most < 1 + _STRETCH and fits and accurate:
            self._good_for, self._good_cell = charge, cell
            return parameters
        return None

    def _unintended(self, errors: dict[str, float]) -> list[float]:
        """Leave out the errors of parts whose parameters the user has set himself."""
        settings = self.settings
        given = {"pairs": settings.real_cutoff, "waves": settings.k_cutoff, "mesh": settings.mesh}
        return [error for part, error in errors.items() if given[part] is None] or [0.0]

    def _periodic_plan(self, graph: AtomicGraph, parameters: SumParameters) -> CoulombPlan:
        """Pairs within the real-space cutoff, and the k vectors or the mesh."""
        cell, length = graph.cell[0], parameters.open_length
        index, shifts = graph.edge_index[:, :0], graph.edge_shifts[:0]
        if parameters.real_cutoff:
            index, shifts = self._search.find(graph.positions, cell, graph.pbc[0])
        with_mesh = parameters.method == "mesh"
        mesh = [*parameters.mesh, parameters.spline_order]
        kvectors = self._kvectors[: 0 if with_mesh else None].to(cell.device)
        millers_a, millers_b, millers_c = _ranges(kvectors)
        return CoulombPlan(
            pair_index=index,
            pair_shifts=shifts,
            kvectors=kvectors[None],
            millers_a=millers_a,
            millers_b=millers_b,
            millers_c=millers_c,
            splitting=cell.new_full((1,), parameters.splitting),
            open_length=cell.new_full((1,), length) if length else None,
            mesh=torch.tensor([mesh], device=cell.device) if with_mesh else None,
            basis=self._basis[None].to(cell.device),
        )


def _single(graph: AtomicGraph, structure: int, atoms: Bool[Tensor, " n_atoms"]) -> AtomicGraph:
    """Take one structure out of a batch, without its edges and derivatives."""
    return AtomicGraph(
        positions=graph.positions[atoms].detach(),
        atomic_numbers=graph.atomic_numbers[atoms],
        cell=graph.cell[structure : structure + 1].detach(),
        pbc=graph.pbc[structure : structure + 1],
        batch=graph.batch.new_zeros(int(atoms.sum())),
        edge_index=graph.edge_index[:, :0],
        edge_shifts=graph.edge_shifts[:0],
        total_charge=graph.total_charge[structure : structure + 1],
    )


def _mean_size(charges: Float64[Tensor, " n"]) -> float:
    """Root mean square of charges in e."""
    return float(charges.detach().square().mean().sqrt())


def _direct_plan(graph: AtomicGraph) -> CoulombPlan:
    """All pairs, no images, no reciprocal part."""
    n_atoms, device = graph.n_atoms, graph.positions.device
    pairs = torch.triu_indices(n_atoms, n_atoms, offset=1, device=device)
    kvectors = torch.zeros((1, 0, 3), dtype=torch.int64, device=device)
    a, b, c = _ranges(kvectors[0])
    shifts = torch.zeros((pairs.shape[1], 3), dtype=torch.int64, device=device)
    alpha = torch.zeros(1, dtype=torch.float64, device=device)
    return CoulombPlan(pairs, shifts, kvectors, a, b, c, alpha)


def _ranges(
    kvectors: Int64[Tensor, "n_k 3"],
) -> tuple[Int64[Tensor, " a"], Int64[Tensor, " b"], Int64[Tensor, " c"]]:
    """All indices along each axis: from 0 along the first, symmetric along the others."""
    if not len(kvectors):
        none = kvectors.new_zeros(0)
        return none, none, none
    last = [torch.arange(each + 1, device=kvectors.device) for each in kvectors.abs().amax(0)]
    return last[0], _mirrored(last[1]), _mirrored(last[2])


def _mirrored(indices: Int64[Tensor, " n"]) -> Int64[Tensor, " m"]:
    """0, 1, … n → −n, … n."""
    return torch.cat([-indices[1:].flip(0), indices])


def short_basis(cell: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"]) -> Int64[Tensor, "3 3"]:
    """Integers that turn lattice vectors into the shortest ones of the same lattice.

    The rows of `cell` are in Å. A mesh in a skewed cell would be fine along the edges and coarse
    across them.
    """
    if not bool(pbc.any()):
        return torch.eye(3, dtype=torch.int64)
    vectors = np.where(pbc.cpu().numpy()[:, None], cell.cpu().numpy(), 0.0)
    _, operation = minkowski_reduce(vectors, pbc.cpu().numpy())
    return torch.as_tensor(operation, dtype=torch.int64)


def _half_sphere(box: Float64[np.ndarray, "3 3"], k_cutoff: float) -> Int64[np.ndarray, "n_k 3"]:
    """Miller indices of the k vectors with 0 < |k| ≤ `k_cutoff`, one of each ±k."""
    limits = np.floor(k_cutoff * np.linalg.norm(box, axis=1) / (2 * np.pi)).astype(int)
    h = np.arange(0, limits[0] + 1)
    k, m = (np.arange(-limit, limit + 1) for limit in limits[1:])
    grid = np.stack(np.meshgrid(h, k, m, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[points_forward(grid)]
    vectors = 2 * np.pi * grid @ np.linalg.inv(box).T
    return grid[np.linalg.norm(vectors, axis=1) <= k_cutoff].astype(np.int64)
