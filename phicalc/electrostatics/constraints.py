"""Which sums of charges are fixed: the total charge of each structure, or those of fragments."""

import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.graph import AtomicGraph


class ChargeConstraints:
    """The constraints ``C q = Q`` on the charges of a batch.

    One row of C per fragment of each structure, ones at its atoms; zeros if charge flows between
    the fragment and a reservoir. Without fragments the row is the whole structure.

    Parameters
    ----------
    graph
        The batch.

    Attributes
    ----------
    net_charge
        Q in e, shape (n_structures, n_fragments).
    fixed
        1.0 where it is fixed, else 0.0.
    flowing
        Whether it may be free somewhere.
    """

    def __init__(self, graph: AtomicGraph):
        fragments = graph.fragments
        self.batch = graph.batch
        self.row = graph.batch
        if fragments is None:
            self.net_charge = graph.total_charge[:, None]
            self.fixed = torch.ones_like(self.net_charge)
        else:
            self.net_charge = fragments.charge
            self.fixed = fragments.fixed.to(fragments.charge)
            self.row = graph.batch * self.fixed.shape[1] + fragments.number
        self.flowing = fragments is not None and not bool(fragments.fixed.all())

    def total(self, charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, "s f"]:
        """C q: net charges in e, zero for fragments whose charge is free."""
        return self._sum(charges) * self.fixed

    def populations(self) -> Float64[Tensor, "s f"]:
        """Return the number of atoms of each fragment."""
        return self._sum(torch.ones_like(self.row, dtype=self.fixed.dtype))

    def _sum(self, values: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, "s f"]:
        """Sum over each fragment."""
        if self.fixed.numel() == 1:
            return values.sum().reshape(1, 1)
        sums = values.new_zeros(self.fixed.numel()).index_add(0, self.row, values)
        return sums.reshape(self.fixed.shape)

    def at_atoms(self, values: Float64[Tensor, "s f"]) -> Float64[Tensor, " n_atoms"]:
        """Give each atom the value of its fragment: Cᵀ of values that are zero where C is."""
        if values.numel() == 1:
            return values.reshape(1).expand(self.row.shape[0])  # `len` is a constant when compiled
        return values.reshape(-1)[self.row]

    def members(self) -> Float64[Tensor, "f n_atoms"]:
        """Return Cᵀ for the first, second, … fragment of all structures together."""
        n_fragments = self.fixed.shape[1]
        number = torch.remainder(self.row, n_fragments)
        members = number == torch.arange(n_fragments, device=number.device)[:, None]
        return members * self.at_atoms(self.fixed)


def mean_charge(graph: AtomicGraph) -> Float64[Tensor, " n_atoms"]:
    """Net charge in e of the structure or fragment of each atom, by its number of atoms.

    The mean, not the sum, makes the energy of a repeated cell extensive. 0 where charge is free.
    """
    constraints = ChargeConstraints(graph)
    return constraints.at_atoms(constraints.net_charge / constraints.populations().clamp(min=1))
