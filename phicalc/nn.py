"""Building blocks of equivariant networks, in plain torch.

Equivariant features have the shape ``(n, (l_max + 1)², channels)``: for every l the 2l + 1 real
components m = −l … l, with the natural parity (−1)^l of spherical harmonics.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn

#: Highest degree for which spherical harmonics are implemented.
MAX_DEGREE = 3

#: Brings SiLU of a standard normal variable to unit second moment.
SILU_GAIN = 1.6765324703310907


def spherical_harmonics(unit: Float[Tensor, "n 3"], l_max: int) -> Float[Tensor, "n components"]:
    """Real spherical harmonics of unit vectors up to `l_max` ≤ 3, ordered by l, then m.

    Normalized so that the squares of each l sum to 2l + 1 ("component" normalization).
    """
    x, y, z = unit.unbind(1)
    harmonics = [torch.ones_like(x)]
    if l_max >= 1:
        harmonics += [math.sqrt(3) * y, math.sqrt(3) * z, math.sqrt(3) * x]
    if l_max >= 2:
        c = math.sqrt(15)
        harmonics += [c * x * y, c * y * z, math.sqrt(5) / 2 * (3 * z * z - 1), c * x * z]
        harmonics += [c / 2 * (x * x - y * y)]
    if l_max >= 3:
        a, b, c = math.sqrt(35 / 8), math.sqrt(105), math.sqrt(21 / 8)
        harmonics += [a * y * (3 * x * x - y * y), b * x * y * z, c * y * (5 * z * z - 1)]
        harmonics += [math.sqrt(7) / 2 * z * (5 * z * z - 3), c * x * (5 * z * z - 1)]
        harmonics += [b / 2 * z * (x * x - y * y), a * x * (x * x - 3 * y * y)]
    return torch.stack(harmonics, dim=1)


def degrees(l_max: int) -> list[int]:
    """Degree l of each component up to `l_max`: ``[0, 1, 1, 1, 2, …]``."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def block(degree: int) -> slice:
    """Where the 2l + 1 components of one degree stand."""
    return slice(degree**2, (degree + 1) ** 2)


@lru_cache
def coupling(l1: int, l2: int, l3: int) -> Float[np.ndarray, "n1 n2 n3"]:
    """Coupling coefficients ``C[m1, m2, m3]`` of degrees l1 ⊗ l2 → l3, shape (2l1+1, 2l2+1, 2l3+1).

    The Gaunt integral of three real spherical harmonics, by exact quadrature: for natural parities
    (l1 + l2 + l3 even) it is the Clebsch–Gordan coefficient but for a factor. Scaled so that two
    independent inputs with unit component variance give an output with unit component variance.

    Raises
    ------
    ValueError
        If the three degrees do not couple, or only to a pseudo-tensor.
    """
    if (l1 + l2 + l3) % 2 or not abs(l1 - l2) <= l3 <= l1 + l2 or max(l1, l2, l3) > MAX_DEGREE:
        raise ValueError(f"degrees {l1} and {l2} have no natural-parity coupling to {l3}")
    cosine, weight = leggauss(8)  # exact for the product of three harmonics of degree 3
    angle = 2 * np.pi * np.arange(16) / 16
    sine = np.sqrt(1 - cosine**2)
    x, y = np.outer(sine, np.cos(angle)), np.outer(sine, np.sin(angle))
    z = np.repeat(cosine, 16).reshape(x.shape)
    grid = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    harmonics = spherical_harmonics(torch.from_numpy(grid), MAX_DEGREE).numpy()
    weights = np.repeat(weight, 16)
    first, second, third = (harmonics[:, block(degree)] for degree in (l1, l2, l3))
    gaunt = np.einsum("g,ga,gb,gc->abc", weights, first, second, third)
    return gaunt * math.sqrt((2 * l3 + 1) / np.sum(gaunt**2))


def couplings(l1_max: int, l2_max: int, l3_max: int) -> list[tuple[int, int, int]]:
    """All natural-parity couplings (l1, l2, l3) within these degrees, ordered by l3."""
    return [
        (l1, l2, l3)
        for l3 in range(l3_max + 1)
        for l1 in range(l1_max + 1)
        for l2 in range(l2_max + 1)
        if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
    ]


class RadialBasis(nn.Module):
    """Trainable Bessel functions of the edge length under a smooth polynomial envelope.

    ``√2 sin(w_n x)/x · u(x)`` of the reduced length x = r/r_c, w_n starting at nπ; the envelope u
    has exponent p = 6 and is zero at the cutoff r_c (in Å) together with its first two derivatives.

    References
    ----------
    Gasteiger, Groß & Günnemann, ICLR 2020 (arXiv:2003.03123).
    """

    def __init__(self, n_functions: int, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.frequencies = nn.Parameter(math.pi * torch.arange(1.0, n_functions + 1))

    def forward(self, lengths: Float[Tensor, " n"]) -> Float[Tensor, "n n_functions"]:
        """Values of all functions at the given lengths in Å."""
        x = (lengths / self.cutoff)[:, None]
        return math.sqrt(2) * torch.sin(self.frequencies * x) / x * envelope(x)


def envelope(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Polynomial cutoff of the dimensionless length x = r/r_c: 1 at 0, C² to zero at 1 (p = 6)."""
    inside = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    return torch.where(x < 1, inside, 0.0)


def smooth_step(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Rise from 0 at x ≤ 0 to 1 at x ≥ 1, C²."""
    x = x.clamp(0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


class Constants(nn.Module):
    """Numbers that follow a module from device to device and stay in double precision.

    They are no part of its weights.
    """

    def __init__(self, values: Sequence[float]):
        super().__init__()
        self.values = torch.tensor(values, dtype=torch.float64)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Constants":
        """Move; what else is done to the module's weights does not concern them."""
        super()._apply(fn, recurse)
        self.values = self.values.to(fn(self.values).device)
        return self

    def forward(self, index: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """Return those with these numbers."""
        return self.values[index]


class Linear(nn.Module):
    """Linear map of the last axis without bias, with weights of unit variance.

    The factor 1/√n_in is applied at use, not at initialization, so that one learning rate
    suits layers of every width.
    """

    def __init__(self, n_in: int, n_out: int, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out))
        self.scale = gain / math.sqrt(n_in)

    def forward(self, values: Float[Tensor, "... n_in"]) -> Float[Tensor, "... n_out"]:
        """Map n_in to n_out."""
        return values @ (self.weight * self.scale)


class MLP(nn.Sequential):
    """Perceptron with SiLU between linear layers and no bias: zero in, zero out."""

    def __init__(self, *widths: int):
        layers: list[nn.Module] = [Linear(widths[0], widths[1])]
        for n_in, n_out in zip(widths[1:-1], widths[2:], strict=True):
            layers += [nn.SiLU(), Linear(n_in, n_out, SILU_GAIN)]
        super().__init__(*layers)


class EquivariantLinear(nn.Module):
    """Mixes channels with one matrix per degree l; nothing mixes between degrees."""

    def __init__(self, l_max: int, n_in: int, n_out: int):
        super().__init__()
        self.l_max = l_max
        self.weight = nn.Parameter(torch.randn(l_max + 1, n_in, n_out))
        self.scale = 1 / math.sqrt(n_in)

    def forward(self, features: Float[Tensor, "n m n_in"]) -> Float[Tensor, "n m_out n_out"]:
        """Map the channels of the degrees up to `l_max`; higher ones are dropped."""
        weight = self.weight * self.scale
        mixed = [features[:, block(degree)] @ weight[degree] for degree in range(self.l_max + 1)]
        return torch.cat(mixed, dim=1)


class ElementLinear(nn.Module):
    """Mixes channels with one matrix per degree and per element (NequIP's self-connection)."""

    def __init__(self, l_max: int, n_in: int, n_out: int, n_elements: int):
        super().__init__()
        self.n_elements, self.n_out = n_elements, n_out
        self.linear = EquivariantLinear(l_max, n_in, n_elements * n_out)

    def forward(
        self, features: Float[Tensor, "n m n_in"], element: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n m_out n_out"]:
        """Map the channels of each atom by the matrices of its element."""
        every = self.linear(features).unflatten(2, (self.n_elements, self.n_out))
        chosen = element[:, None, None, None].expand(-1, every.shape[1], 1, self.n_out)
        return every.gather(2, chosen).squeeze(2)


class Gate(nn.Module):
    """SiLU for the scalars; every higher degree is multiplied by a gate made from them."""

    def __init__(self, l_max: int, channels: int):
        super().__init__()
        self.l_max, self.channels = l_max, channels
        self.gates = Linear(channels, l_max * channels) if l_max else None

    def forward(self, features: Float[Tensor, "n m c"]) -> Float[Tensor, "n m c"]:
        """Apply the non-linearity."""
        scalars = features[:, :1]
        activated = [SILU_GAIN * nn.functional.silu(scalars)]
        if self.gates is not None:
            gates = 2 * torch.sigmoid(self.gates(scalars)).unflatten(2, (self.l_max, self.channels))
            activated += [
                features[:, block(degree)] * gates[:, :, degree - 1]
                for degree in range(1, self.l_max + 1)
            ]
        return torch.cat(activated, dim=1)
