"""The lowest eigenvectors of the graph Laplacian, as constants."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import pad

from phicalc.electrostatics.laplacian import Laplacian
from phicalc.graph import from_slots

#: Largest structure whose matrix is diagonalised; beyond, shift-invert Lanczos iterations.
DENSE_EIGENPAIRS = 600


@torch.no_grad()
def lowest_eigenvectors(laplacian: Laplacian, k: int) -> Float64[Tensor, "n_atoms k"]:
    """Eigenvectors of the k lowest eigenvalues of each structure, by ascending eigenvalue.

    Columns beyond the number of atoms are zero. The component of largest magnitude is positive.
    Eigenvectors of equal eigenvalues, and so the fields made of them, are not unique.

    Parameters
    ----------
    laplacian
        L of the batch.
    k
        Number of eigenvectors.
    """
    assert laplacian.graph.atom_of_slot is not None
    if laplacian.graph.atom_of_slot.shape[1] <= DENSE_EIGENPAIRS:
        vectors = _by_diagonalisation(laplacian, k)
    else:
        vectors = _by_iteration(laplacian, k)
    return vectors


@torch.no_grad()
def are_unique(laplacian: Laplacian, k: int, gap: float = 1e-6) -> bool:
    """Whether no two of the k + 1 lowest eigenvalues of a structure are equal within `gap` (1/Å).

    Otherwise another order of the atoms may give other eigenvectors. One structure only.
    """
    vectors = lowest_eigenvectors(laplacian, min(k + 1, laplacian.graph.n_atoms))
    values = 2 * laplacian.atomic_energies(vectors).sum(0)
    return bool((values.diff() > gap).all())


def _by_diagonalisation(laplacian: Laplacian, k: int) -> Float64[Tensor, "n_atoms k"]:
    """All eigenvectors of padded matrices, in which empty slots come last."""
    table = laplacian.graph.atom_of_slot
    assert table is not None
    empty = (table >= laplacian.graph.n_atoms).to(laplacian.weights)
    matrix = laplacian.matrix()
    far = 1 + 4 * matrix.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    _, vectors = torch.linalg.eigh(matrix + torch.diag_embed(far * empty))
    vectors = vectors[:, :, :k] * (1 - empty)[:, :, None]
    occupied = (1 - empty).sum(1).long()
    column = torch.arange(vectors.shape[2], device=table.device)
    vectors = vectors * (column < occupied[:, None])[:, None, :]
    return from_slots(
        pad(_oriented(vectors, 1), (0, max(0, k - vectors.shape[2]))), laplacian.graph
    )


def _by_iteration(laplacian: Laplacian, k: int) -> Float64[Tensor, "n_atoms k"]:
    """Lanczos iterations with the inverse of L, structure by structure."""
    from scipy.sparse import identity
    from scipy.sparse.linalg import eigsh

    graph, device = laplacian.graph, laplacian.weights.device
    matrix, batch = laplacian.sparse(), graph.batch.cpu().numpy()
    result = np.zeros((graph.n_atoms, k))
    for structure in range(graph.n_structures):
        atoms = np.flatnonzero(batch == structure)
        block = matrix[atoms][:, atoms]
        n_pairs = min(k, len(atoms))
        if len(atoms) <= max(DENSE_EIGENPAIRS, n_pairs + 1):
            vectors = np.linalg.eigh(block.toarray())[1][:, :n_pairs]
        else:
            start = np.cos(np.arange(len(atoms)))  # the same every time
            shifted = (block + 1e-6 * identity(len(atoms))).tocsc()
            values, vectors = eigsh(shifted, k=n_pairs, sigma=0.0, v0=start)
            vectors = vectors[:, np.argsort(values)]
        result[atoms, :n_pairs] = _oriented(torch.from_numpy(vectors), 0).numpy()
    return torch.from_numpy(result).to(device)


def _oriented(vectors: Float64[Tensor, "*s m k"], axis: int) -> Float64[Tensor, "*s m k"]:
    """Make the component of largest magnitude positive."""
    if vectors.shape[axis] == 0:
        return vectors
    largest = vectors.abs().argmax(axis, keepdim=True)
    return vectors * torch.where(vectors.gather(axis, largest) < 0, -1.0, 1.0)
