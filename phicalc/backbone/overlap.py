"""What the network sees of atoms that are closer than any in the training data."""

from collections.abc import Mapping

import torch
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from phicalc.backbone.interaction import EdgeFeatures
from phicalc.elements import symbols_of_pair
from phicalc.nn import RadialBasis, smooth_step

#: Lengths of this part of the nearest one and less count the same.
_HELD = 0.8


class InnerEnvelope(nn.Module):
    """Lets messages fade out between two atoms that overlap.

    They are multiplied by a polynomial of ``r/(r_i + r_j)`` with covalent radii, 0 up to `START`
    and 1 from `END` on, C² between.

    Parameters
    ----------
    elements
        Chemical symbols.
    """

    radii: Tensor
    START, END = 0.5, 0.75

    def __init__(self, elements: tuple[str, ...]):
        super().__init__()
        radii = torch.tensor([covalent_radii[atomic_numbers[symbol]] for symbol in elements])
        self.register_buffer("radii", radii.double(), persistent=False)

    def forward(self, edges: EdgeFeatures, element: Int64[Tensor, " n_atoms"]) -> EdgeFeatures:
        """Return the edges with weakened directions, which all messages contain."""
        radius = self.radii.double()[element]
        nearest = radius[:, None] + radius[edges.neighbor]
        fading = smooth_step((edges.lengths / nearest - self.START) / (self.END - self.START))
        return edges._replace(harmonics=edges.harmonics * fading[:, :, None].to(edges.harmonics))


class NearestLengths(nn.Module):
    """Keeps edge lengths within the range of the training data: radial functions never extrapolate.

    With d the shortest distance of a pair of elements, lengths of 0.8 d and less are replaced by
    0.9 d, and those between 0.8 d and d by a C² interpolation. Lengths from d on are unchanged.

    Parameters
    ----------
    elements
        Chemical symbols.
    nearest
        Smallest distance in Å of pairs of elements, such as ``H-O``; others are left alone.
    """

    nearest: Tensor

    def __init__(self, elements: tuple[str, ...], nearest: Mapping[str, float]):
        super().__init__()
        table = torch.zeros(len(elements), len(elements), dtype=torch.float64)
        numbers = {symbol: number for number, symbol in enumerate(elements)}
        for pair, length in nearest.items():
            first, second = map(numbers.get, symbols_of_pair(pair))
            if first is not None and second is not None:
                table[first, second] = table[second, first] = length
        self.register_buffer("nearest", table, persistent=False)

    def forward(
        self, edges: EdgeFeatures, element: Int64[Tensor, " n_atoms"], basis: RadialBasis
    ) -> EdgeFeatures:
        """Return the edges with lengths held, and the radial functions of these."""
        nearest = self.nearest.double()[element[:, None], element[edges.neighbor]]
        lengths = held(edges.lengths, nearest)
        lengths = torch.where(edges.lengths > 0, lengths, 1.0)  # padding: its harmonics are zero
        radial = basis(lengths.to(edges.radial).reshape(-1)).reshape(edges.radial.shape)
        return edges._replace(lengths=lengths, radial=radial)


def held(lengths: Float64[Tensor, "*n"], nearest: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    """Return lengths (Å) that fall below `nearest` (Å) by a tenth at most; 0 holds nothing."""
    limit = torch.where(nearest > 0, nearest, 1.0)
    t = ((lengths / limit - _HELD) / (1 - _HELD)).clamp(0, 1)
    share = (1 + _HELD) / 2 + (1 - _HELD) * t**4 * (2.5 - 3 * t + t**2)
    return torch.where(lengths < nearest, limit * share, lengths)
