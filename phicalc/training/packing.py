"""What a training run saves: optimizer and random generators as named tensors."""

from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor


def pack_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Shaped[Tensor, "..."]], list[Any]]:
    """Split an optimizer's state into named tensors and a JSON list of its groups."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, entry in state["state"].items()
        for key, value in entry.items()
    }
    return tensors, state["param_groups"]


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Shaped[Tensor, "..."]], groups: list[Any]
) -> None:
    """Give an optimizer back the state that `pack_optimizer` took from it."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def pack_random_state() -> dict[str, UInt8[Tensor, " n_bytes"]]:
    """Return the states of torch's random generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def unpack_random_state(states: dict[str, UInt8[Tensor, " n_bytes"]]) -> None:
    """Set torch's random generators to saved states."""
    torch.set_rng_state(states["cpu"])
    for index in range(torch.cuda.device_count()):
        if f"cuda{index}" in states:
            torch.cuda.set_rng_state(states[f"cuda{index}"], index)
