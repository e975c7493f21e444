"""Hydrogen bonded to another element: its charge counts with the atom that it is bonded to."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.links import Links
from phicalc.electrostatics.head import Surroundings


class BondedHydrogens(nn.Module):
    """Finds hydrogen atoms that are bonded to other elements, and what they are bonded to.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    """

    hydrogen: Tensor

    def __init__(self, surroundings: Surroundings):
        super().__init__()
        hydrogen = torch.tensor([symbol == "H" for symbol in surroundings.elements])
        self.register_buffer("hydrogen", hydrogen, persistent=False)

    def bonds(
        self, element: Int64[Tensor, " n_atoms"], links: Links
    ) -> Float64[Tensor, " n_links"]:
        """Return 1 for whole bonds from a hydrogen atom to another element, falling to 0."""
        first, second = self.hydrogen[element][links.atoms]
        return links.bonding * (first & ~second)

    def bonded(
        self, element: Int64[Tensor, " n_atoms"], links: Links
    ) -> Float64[Tensor, " n_atoms"]:
        """Return the sum over those bonds for each atom; 0 for all that are not hydrogen."""
        bonds = self.bonds(element, links)
        return bonds.new_zeros(element.shape[0]).index_add(0, links.atoms[0], bonds)

    def united(
        self,
        charges: Float64[Tensor, " n_atoms"],
        element: Int64[Tensor, " n_atoms"],
        links: Links,
    ) -> Float64[Tensor, " n_atoms"]:
        """Return charges in e with those of bonded hydrogen moved to what it is bonded to."""
        first, second = links.atoms
        shares = self.bonds(element, links) / self.bonded(element, links)[first].clamp(min=1)
        moved = charges[first] * shares
        return charges.index_add(0, first, -moved).index_add(0, second, moved)
