"""Features of the bonds around each atom: what decides which ion a molecule is."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.links import Links
from phicalc.electrostatics.head import Surroundings
from phicalc.nn import Linear

#: Scalars of an atom, and rounds of messages.
_WIDTH, _ROUNDS = 32, 4
#: Gain of messages: those of some neighbors together are of order one.
_SHARE = 0.5


class BondFeatures(nn.Module):
    """Elements and links → scalars of each atom, by rounds of messages along bonds.

    ``h ← h + U tanh(S h + Σ_j b_ij M h_j)`` from h = embedding of the element, where b_ij is 1 for
    whole covalent bonds and fades as they break. Features of a molecule thus depend on what is
    bonded to what, and stay the same when atoms move; those of a metal depend on its element. They
    are apart from those of the backbone: features that tell ions apart describe energies poorly.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    """

    def __init__(self, surroundings: Surroundings):
        super().__init__()
        self.n_features = _WIDTH
        self.embedding = nn.Parameter(torch.randn(len(surroundings.elements), _WIDTH))
        self.rounds = nn.ModuleList(_Round() for _ in range(_ROUNDS))

    def forward(
        self, element: Int64[Tensor, " n_atoms"], links: Links
    ) -> Float[Tensor, "n_atoms n_features"]:
        """Return the features of a batch."""
        features = self.embedding[element]
        bonding = links.bonding.to(features)[:, None]
        for each in self.rounds:
            features = features + each(features, bonding, links.atoms)
        return features


class _Round(nn.Module):
    """One round of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.send, self.keep = Linear(_WIDTH, _WIDTH, _SHARE), Linear(_WIDTH, _WIDTH)
        self.update = Linear(_WIDTH, _WIDTH)

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        bonding: Float[Tensor, "n_links 1"],
        atoms: Int64[Tensor, "2 n_links"],
    ) -> Float[Tensor, "n_atoms c"]:
        first, second = atoms
        messages = bonding * self.send(features).index_select(0, second)
        hidden = self.keep(features).index_add(0, first, messages)
        return self.update(torch.tanh(hidden))
