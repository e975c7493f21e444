"""The smooth part of the interaction as a sum over k vectors.

A plane wave is a product of three, ``exp(ik·r) = exp(ihα) exp(ikβ) exp(imγ)`` with the angles of an
atom along the axes. Sums over atoms or waves thus become products of matrices: (atoms × pairs of
the first two indices) with (atoms × third index). Structures without waves have none of all this.
"""

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor


class WaveSum:
    """Sum over the k vectors of a batch, for one geometry (differentiable in it).

    Parameters
    ----------
    positions
        Positions in Å as a padded table.
    reciprocal_box
        Reciprocal lattice vectors as rows, 2π included.
    kvectors
        The k vectors in 1/Å.
    weight
        Interaction that each k vector stands for, in eV/e²; 0 for padding.
    places
        Place of each k vector in the three `ranges`.
    ranges
        All components that k vectors may have along each reciprocal vector, in its units.
    """

    def __init__(
        self,
        positions: Float64[Tensor, "s m 3"],
        reciprocal_box: Float64[Tensor, "s 3 3"],
        kvectors: Float64[Tensor, "s n_k 3"],
        weight: Float64[Tensor, "s n_k"],
        places: Int64[Tensor, "s n_k 3"],
        ranges: tuple[Shaped[Tensor, "*s a"], Shaped[Tensor, "*s b"], Shaped[Tensor, "*s c"]],
    ):
        self.positions, self.kvectors, self.weight = positions, kvectors, weight
        self.sizes = [each.shape[-1] for each in ranges]
        h, k, m = places.unbind(2)
        self.place = (h * self.sizes[1] + k) * self.sizes[2] + m  # in the grid of all indices
        angles = (positions @ reciprocal_box.transpose(1, 2)).unbind(2)
        phases = [a[:, :, None] * n[..., None, :] for a, n in zip(angles, ranges, strict=True)]
        first, second, third = ((torch.cos(phase), torch.sin(phase)) for phase in phases)
        self.plane = torch.cat(_product(first, second), dim=2)
        self.line = torch.cat(third, dim=2)

    def structure_factor(
        self, charges: Float64[Tensor, "s m"]
    ) -> tuple[Float64[Tensor, "s n_k"], Float64[Tensor, "s n_k"]]:
        """Real and imaginary part of ``Σ q exp(ik·r)`` in e."""
        n_plane, n_line = self.sizes[0] * self.sizes[1], self.sizes[2]
        grid = self.plane.transpose(1, 2) @ (charges[:, :, None] * self.line)
        upper, lower = grid.split([n_plane, n_plane], dim=1)
        real = upper[:, :, :n_line] - lower[:, :, n_line:]
        imaginary = upper[:, :, n_line:] + lower[:, :, :n_line]
        return real.flatten(1).gather(1, self.place), imaginary.flatten(1).gather(1, self.place)

    def energy(self, charges: Float64[Tensor, "s m"]) -> Float64[Tensor, " s"]:
        """Energy of each structure in eV."""
        real, imaginary = self.structure_factor(charges)
        return 0.5 * (self.weight * (real**2 + imaginary**2)).sum(1)

    def potential(self, charges: Float64[Tensor, "s m"]) -> Float64[Tensor, "s m"]:
        """Potential at each atom in eV/e."""
        parts = self.structure_factor(charges)
        real, imaginary = (self._to_grid(self.weight * part) for part in parts)
        upper = torch.cat([real, imaginary], dim=1)
        lower = torch.cat([imaginary, -real], dim=1)
        both = torch.cat([upper, lower], dim=2)  # (s, 2 n_plane, 2 n_line)
        return (self.plane * (self.line @ both.transpose(1, 2))).sum(2)

    def _to_grid(self, values: Float64[Tensor, "s n_k"]) -> Float64[Tensor, "s n_plane n_line"]:
        """Put values of k vectors where their indices say."""
        a, b, c = self.sizes
        grid = values.new_zeros(values.shape[0], a * b * c).scatter_add(1, self.place, values)
        return grid.reshape(values.shape[0], a * b, c)

    def matrix(self) -> Float64[Tensor, "s m m"]:
        """Interaction of every pair of slots in eV/e²."""
        phase = self.positions @ self.kvectors.transpose(1, 2)
        waves = (torch.cos(phase), torch.sin(phase))
        terms = [(wave * self.weight[:, None, :]) @ wave.transpose(1, 2) for wave in waves]
        return terms[0] + terms[1]


def _product(
    first: tuple[Float64[Tensor, "s m a"], Float64[Tensor, "s m a"]],
    second: tuple[Float64[Tensor, "s m b"], Float64[Tensor, "s m b"]],
) -> tuple[Float64[Tensor, "s m ab"], Float64[Tensor, "s m ab"]]:
    """Complex product of the waves along two axes, for every pair of indices."""
    (a, b), (c, d) = (
        (first[0][..., None], first[1][..., None]),
        (second[0][..., None, :], second[1][..., None, :]),
    )
    return (a * c - b * d).flatten(2), (a * d + b * c).flatten(2)
