"""Products of equivariant features of the same atom, which raise the body order of a layer."""

import math
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from phicalc.nn import block, coupling, couplings, degrees


class ElementCoupling(nn.Module):
    """Couples two sets of features channel by channel, with one weight per element and path.

    Parameters
    ----------
    l_in, l_out
        Highest degree of both inputs, and of the result.
    channels, n_elements
        Sizes.
    symmetric
        Whether both inputs are always the same features, which leaves only distinct pairs.
    """

    first: Tensor
    second: Tensor
    table: Tensor
    path_of_row: Tensor
    gather: Tensor

    def __init__(self, l_in: int, l_out: int, channels: int, n_elements: int, symmetric: bool):
        super().__init__()
        paths = [p for p in couplings(l_in, l_in, l_out) if p[0] <= p[1] or not symmetric]
        rows = [(path, m) for path, (_, _, l3) in enumerate(paths) for m in range(2 * l3 + 1)]
        size = (l_in + 1) ** 2
        table = np.zeros((len(rows), size, size))
        gather = np.zeros(((l_out + 1) ** 2, len(rows)))
        for row, (path, m) in enumerate(rows):
            l1, l2, l3 = paths[path]
            table[row, block(l1), block(l2)] = coupling(l1, l2, l3)[:, :, m]
            fan_in = sum(p[2] == l3 for p in paths)
            gather[l3**2 + m, row] = 1 / math.sqrt(fan_in)
        if symmetric:
            table = np.triu(table) + np.triu(table.transpose(0, 2, 1), k=1)
        first, second = np.nonzero(np.any(table != 0, axis=0))
        self.weight = nn.Parameter(torch.randn(n_elements, len(paths), channels))
        self._buffer("first", first)
        self._buffer("second", second)
        self._buffer("table", table[:, first, second])
        self._buffer("path_of_row", np.array([path for path, _ in rows]))
        self._buffer("gather", gather)

    def _buffer(self, name: str, values: Shaped[np.ndarray, "..."]) -> None:
        """Keep a constant: it moves with the module but is not part of its weights."""
        self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(
        self,
        left: Float[Tensor, "n m c"],
        right: Float[Tensor, "n m c"],
        element: Int64[Tensor, " n"],
    ) -> Float[Tensor, "n m_out c"]:
        """Couple the features of every atom."""
        products = left[:, self.first] * right[:, self.second]  # (n, pairs, c)
        coupled = self.table.to(left) @ products  # (n, rows, c)
        weights = self.weight[:, self.path_of_row][element]  # (n, rows, c)
        return self.gather.to(left) @ (weights * coupled)


class UnrolledCoupling(nn.Module):
    """The same as an `ElementCoupling`, term by term.

    Compilers make one loop of it that leaves out what is zero, nine tenths of the table. Without
    one it is slow.
    """

    def __init__(self, coupling: ElementCoupling):
        super().__init__()
        self.weight = coupling.weight
        self.n_out = len(coupling.gather)
        self.rows = [
            (path, component, self._terms(coupling, row, scale))
            for row, path in enumerate(coupling.path_of_row.tolist())
            for component, scale in enumerate(coupling.gather[:, row].tolist())
            if scale
        ]

    @staticmethod
    def _terms(coupling: ElementCoupling, row: int, scale: float) -> list[tuple[int, int, float]]:
        """Components of both inputs and coefficients of one row of the table."""
        pairs = zip(coupling.first.tolist(), coupling.second.tolist(), strict=True)
        values = (scale * coupling.table[row]).tolist()
        return [(a, b, c) for (a, b), c in zip(pairs, values, strict=True) if abs(c) > 1e-12]

    def forward(
        self,
        left: Float[Tensor, "n m c"],
        right: Float[Tensor, "n m c"],
        element: Int64[Tensor, " n"],
    ) -> Float[Tensor, "n m_out c"]:
        """Couple the features of every atom."""
        first, second = left.unbind(1), right.unbind(1)
        weights = self.weight[element].unbind(1)
        result: list[Tensor | float] = [0.0] * self.n_out
        for path, component, terms in self.rows:
            coupled = sum(c * first[a] * second[b] for a, b, c in terms)
            result[component] = result[component] + weights[path] * coupled
        return torch.stack(cast("list[Tensor]", result), dim=1)


class NodeProduct(nn.Module):
    """Sum of products A, A⊗A, A⊗A⊗A of aggregated features up to a body order, as in ACE.

    The triple product couples A once more to an element-dependent mixture of the pairs, so its
    cost stays linear in the number of paths.

    Parameters
    ----------
    l_in, l_out
        Highest degree of the features, and of the result.
    correlation
        Number of factors, ν = 1, 2 or 3; 1 leaves the features as they are.
    channels, n_elements
        Sizes.

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019); Batatia et al., NeurIPS 2022 (arXiv:2206.07697).
    """

    degree_of_component: Tensor
    element_weight: nn.Parameter
    pairs: nn.Module
    mixture: nn.Module
    triples: nn.Module

    def __init__(self, l_in: int, l_out: int, correlation: int, channels: int, n_elements: int):
        super().__init__()
        self.correlation, self.n_out = correlation, (l_out + 1) ** 2
        self.register_buffer("degree_of_component", torch.tensor(degrees(l_out)), persistent=False)
        if correlation >= 2:
            self.element_weight = nn.Parameter(torch.randn(n_elements, l_out + 1, channels))
            self.pairs = ElementCoupling(l_in, l_out, channels, n_elements, symmetric=True)
        if correlation >= 3:
            self.mixture = ElementCoupling(l_in, l_in, channels, n_elements, symmetric=True)
            self.triples = ElementCoupling(l_in, l_out, channels, n_elements, symmetric=False)

    def unroll(self) -> None:
        """Turn into what compilers make fast code of."""
        for name, part in list(self.named_children()):
            if isinstance(part, ElementCoupling):
                setattr(self, name, UnrolledCoupling(part))

    def forward(
        self, features: Float[Tensor, "n m c"], element: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n m_out c"]:
        """Form the products of every atom."""
        result = features[:, : self.n_out]
        if self.correlation >= 2:
            weight = self.element_weight[:, self.degree_of_component][element]
            result = weight * result + self.pairs(features, features, element)
        if self.correlation >= 3:
            mixture = self.mixture(features, features, element)
            result = result + self.triples(mixture, features, element)
        return result / math.sqrt(self.correlation)
