"""Where compiled functions are kept, and under which names."""

import hashlib
import json
import os
from pathlib import Path

import torch

from phicalc.checkpoint import weights_digest
from phicalc.potential import Potential

_PACKAGE = Path(__file__).parents[1]


def cache_folder() -> Path:
    """Folder of this user, or ``$PHICALC_CACHE``."""
    if folder := os.environ.get("PHICALC_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "phicalc"


def key(potential: Potential, what: object) -> str:
    """Digest of everything that a compiled function depends on; `what` says which it is."""
    parts = {
        "what": what,
        "config": potential.config.to_dict(),
        "weights": weights_digest(potential),
        "dtype": str(potential.dtype),
        "device": _device_name(potential.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "source": _source_digest(),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _device_name(device: torch.device) -> str:
    """Model of the processor, as far as compiled code depends on it."""
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _source_digest() -> str:
    """Digest of the code of this package."""
    sources = sorted(_PACKAGE.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
