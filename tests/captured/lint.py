"""Finds out whether something is looked at on the way, or comes from the host, as no recording can.

Those of the following operations wait for a GPU, or have results whose size depends on numbers.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that a recording cannot contain.
FORBIDDEN = {
    "_local_scalar_dense", "nonzero", "equal", "bincount", "is_nonzero", "masked_select", "unique",
    "lift_fresh", "_linalg_det", "linalg_inv_ex", "_linalg_solve_ex", "linalg_lu_factor_ex",
    "linalg_cholesky_ex", "_linalg_eigh", "_linalg_svd",
}  # fmt: skip


class Lint(TorchDispatchMode):
    """Counts forbidden operations while it is entered, and all others."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.operations += 1
        name = operation.overloadpacket.__name__
        masks = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in FORBIDDEN or masks:
            self.found[name] += 1
        return operation(*args, **(kwargs or {}))
