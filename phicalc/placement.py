"""Device and precision of a network, from the names that users give."""

from copy import deepcopy

import torch

from phicalc.potential import Potential

#: Precisions a network can have.
DTYPES = ("float32", "float64")


def on_cpu(potential: Potential) -> Potential:
    """Return a potential itself if it is on the CPU, else a copy there, for its plans.

    They are made of many small numbers, for which a GPU is far away.
    """
    return potential if potential.device.type == "cpu" else deepcopy(potential).cpu()


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return torch's dtype for "float32" or "float64".

    Raises
    ------
    ValueError
        For anything else.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    resolved: torch.dtype = getattr(torch, name)
    return resolved


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device for "auto", "cpu", "cuda", ...

    Raises
    ------
    ValueError
        For a name that is no device, or a device that does not exist here.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', ..., got {device!r}") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(device)!r} is not there: torch sees {torch.cuda.device_count()} CUDA "
            "devices. Use device='auto' or 'cpu', or a torch with CUDA support"
        )
    return resolved
