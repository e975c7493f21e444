"""Parts of structures that nothing connects."""

import torch
from ase.data import covalent_radii
from jaxtyping import Bool, Int64
from torch import Tensor

from phicalc.graph.geometry import edge_vectors
from phicalc.graph.record import AtomicGraph

#: Atoms are bonded up to this multiple of the sum of their covalent radii.
BOND_STRETCH = 1.3


def connected_parts(
    graph: AtomicGraph, chosen: Bool[Tensor, " n_edges"] | None = None
) -> Int64[Tensor, " n_atoms"]:
    """Return the smallest number of an atom to which each atom is connected by edges.

    Parameters
    ----------
    graph
        The batch.
    chosen
        Which edges connect, the same in both directions; by default all of them.
    """
    label = torch.arange(graph.n_atoms, device=graph.positions.device)
    first, second = graph.edge_index if chosen is None else graph.edge_index[:, chosen]
    while True:
        nearby = label.scatter_reduce(0, first, label[second], "amin")
        shorter = nearby[nearby]  # follow the chain: long molecules need few rounds
        if torch.equal(shorter, label):
            return label
        label = shorter


def bonded_parts(graph: AtomicGraph) -> Int64[Tensor, " n_atoms"]:
    """Return `connected_parts` by bonds: edges up to 1.3 times the sum of covalent radii."""
    radii = torch.as_tensor(covalent_radii, device=graph.positions.device)[graph.atomic_numbers]
    first, second = graph.edge_index
    lengths = edge_vectors(graph).detach().norm(dim=1)
    return connected_parts(graph, lengths < BOND_STRETCH * (radii[first] + radii[second]))
