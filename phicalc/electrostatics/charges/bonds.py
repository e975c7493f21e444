"""Features of the bonds around each atom: what decides which ion a molecule is."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.links import Links
from phicalc.electrostatics.head import Surroundings
from phicalc.nn import Linear, RadialBasis

#: Scalars of an atom, radial functions, and rounds of messages.
_WIDTH, _RADIAL, _ROUNDS = 32, 8, 3
#: Gain of the radial weights: the messages of some neighbors together are of order one.
_SHARE = 0.1


class BondFeatures(nn.Module):
    """Elements and links → scalars of each atom, by three rounds of messages along links.

    ``h ← h + U tanh(S h + Σ_j w(r_ij) ∘ M h_j)`` from h = embedding of the element, w fading where
    links end. Small, and apart from the backbone: features that tell ions apart describe energies
    poorly.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    """

    def __init__(self, surroundings: Surroundings):
        super().__init__()
        self.n_features = _WIDTH
        self.embedding = nn.Parameter(torch.randn(len(surroundings.elements), _WIDTH))
        self.basis = RadialBasis(_RADIAL, surroundings.cutoff)
        self.rounds = nn.ModuleList(_Round() for _ in range(_ROUNDS))

    def forward(
        self, element: Int64[Tensor, " n_atoms"], links: Links
    ) -> Float[Tensor, "n_atoms n_features"]:
        """Return the features of a batch."""
        features = self.embedding[element]
        lengths, fading = links.lengths.to(features), links.fading.to(features)
        shape = self.basis(lengths) * fading[:, None]
        for each in self.rounds:
            features = features + each(features, shape, links.atoms)
        return features


class _Round(nn.Module):
    """One round of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = Linear(_RADIAL, _WIDTH, _SHARE)
        self.send, self.keep = Linear(_WIDTH, _WIDTH), Linear(_WIDTH, _WIDTH)
        self.update = Linear(_WIDTH, _WIDTH)

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        shape: Float[Tensor, "n_links n_radial"],
        atoms: Int64[Tensor, "2 n_links"],
    ) -> Float[Tensor, "n_atoms c"]:
        first, second = atoms
        messages = self.weigh(shape) * self.send(features).index_select(0, second)
        hidden = self.keep(features).index_add(0, first, messages)
        return self.update(torch.tanh(hidden))
