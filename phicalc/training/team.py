"""Several processes that train one model together, started by ``torchrun``.

Each process takes a share of every batch; gradients and sums of errors are added up, so that all
take the same step, which is that of one process with the whole batch. The first one writes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes of a run; by default this one alone, for which nothing here does anything."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among the processes of this machine."""

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def place(self, device: torch.device) -> torch.device:
        """Give each process of a machine a GPU of its own."""
        if self.size > 1 and device.type == "cuda" and device.index is None:
            device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(device)
        return device

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return what is for this process to do; there may be nothing left for it."""
        return items[self.rank :: self.size]

    def add_gradients(self, parameters: Sequence[Float[Tensor, "..."]]) -> None:
        """Give every process the sum of the gradients of all."""
        if self.size == 1:
            return
        # A parameter without a gradient anywhere must stay so, or weight decay would act on it.
        there = self.add([float(p.grad is not None) for p in parameters])
        used = [p for p, count in zip(parameters, there, strict=True) if count]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([p.numel() for p in used])
        for parameter, part in zip(used, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def add(self, numbers: list[float]) -> list[float]:
        """Add lists of numbers over all processes, entry by entry."""
        if self.size == 1:
            return numbers
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[Team]:
    """Join the processes that ``torchrun`` started, if it did, for the time of the block."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield Team()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), dist.get_node_local_rank())
    finally:
        dist.destroy_process_group()
