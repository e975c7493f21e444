"""How torch compiles a training step: once for structures of all sizes."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

#: Sums of more numbers in single precision are formed chunk by chunk.
_CHUNK = 4096


@contextlib.contextmanager
def for_all_sizes() -> Iterator[None]:
    """Let the compiler trace ``torch.autograd.grad``, and make code for structures of all sizes.

    By default (torch 2.13) it takes sizes that happen to be equal in the first structure for always
    equal, and compiles again, for minutes, when they are not. It also compiles sums of more than
    4096 numbers separately from shorter ones.
    """
    from torch._inductor.codegen.cpp import CppKernel  # takes a second

    with (
        torch._dynamo.config.patch(trace_autograd_ops=True),
        torch.fx.experimental._config.patch(use_duck_shape=False),  # type: ignore[attr-defined]
        # Early versions do not have it.
        mock.patch.object(CppKernel, "need_use_acc_helper", _is_formed_in_chunks, create=True),
    ):
        yield


def _is_formed_in_chunks(kernel: Any, reduction_type: str, dtype: torch.dtype, _: object) -> bool:
    """Whether the sum that a kernel forms is long, whatever the structure."""
    from torch._inductor.virtualized import V

    if reduction_type == "sum" and dtype == torch.float32:
        length = math.prod(kernel.call_ranges[kernel.reduction_depth :])
        return bool(V.graph.sizevars.statically_known_gt(length, _CHUNK))
    return reduction_type == "welford_reduce"
