"""The interaction matrix of one geometry as a constant that is cheap to apply many times."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.sums.mesh import MeshSum

#: Largest structure whose matrix is formed, 32 MB of it.
_MATRIX_ATOMS = 2000

_Map = Callable[[Float64[Tensor, " n"]], Float64[Tensor, " n"]]


def frozen(
    coulomb: CoulombSum,
) -> Callable[[Float64[Tensor, " n_atoms"]], Float64[Tensor, " n_atoms"]]:
    """Return the function from charges (e) to potentials A q (eV/e), without derivatives.

    On the CPU, pairs and shares of mesh points become sparse matrices.
    """
    apply_pairs = _frozen_pairs(coulomb)
    meshes = [(atoms, _frozen_mesh(mesh)) for atoms, mesh in coulomb.meshes]

    def apply(charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        potential = apply_pairs(charges) + coulomb.potential_of_waves(charges)
        for atoms, apply_mesh in meshes:
            potential[atoms] += apply_mesh(charges[atoms])
        return potential

    return apply


def without_looking(
    coulomb: CoulombSum,
) -> Callable[[Float64[Tensor, " n_atoms"]], Float64[Tensor, " n_atoms"]]:
    """Return the same function, made without looking at any number, for a sum without a mesh.

    The matrix of one structure is formed if it is small: it is applied in one operation.
    """
    if coulomb.graph.n_structures > 1 or coulomb.n_slots > _MATRIX_ATOMS:
        return coulomb.potential
    (matrix,) = coulomb.matrix()
    return lambda charges: matrix @ charges


def _frozen_pairs(coulomb: CoulombSum) -> _Map:
    """Pair part of A as a sparse matrix."""
    from scipy.sparse import csr_matrix

    first, second = coulomb.plan.pair_index
    if first.device.type != "cpu":
        return coulomb.potential_of_pairs
    n_atoms = coulomb.graph.n_atoms
    index = (first.numpy(), second.numpy())
    upper = csr_matrix((coulomb.pair.detach().numpy(), index), shape=(n_atoms, n_atoms))
    lower = upper.T.tocsr()

    def apply(charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        q = charges.numpy()
        return torch.from_numpy(upper @ q + lower @ q)

    return apply


def _frozen_mesh(mesh: MeshSum) -> _Map:
    """Mesh part of A, with the shares of every charge as a sparse matrix."""
    from scipy.sparse import csr_matrix

    if mesh.offset.device.type != "cpu":
        return mesh.potential
    n, shape, n_nodes = mesh.offset.shape[1], mesh.shape, mesh.order**3
    parts = list(mesh.shares(torch.ones(n).double()))
    nodes, shares = (
        np.concatenate([part.detach().reshape(n_nodes, -1).T.numpy() for part in each]).reshape(-1)
        for each in zip(*parts, strict=True)
    )
    starts = np.arange(n + 1) * n_nodes
    matrix = csr_matrix((shares, nodes, starts), shape=(n, math.prod(shape)))

    @torch.no_grad()
    def apply(charges: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        on_mesh = torch.from_numpy(matrix.T @ charges.numpy()).reshape(shape)
        felt = mesh.smooth(on_mesh).reshape(-1).numpy()
        return torch.from_numpy(matrix @ felt) - mesh.ripple * charges

    return apply
