"""Where compiled functions are kept, and under which names."""

import hashlib
import inspect
import json
import os
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import nn

from phicalc.backbone.native import kernels_loaded
from phicalc.checkpoint import model_digest
from phicalc.potential import Potential

_PACKAGE = Path(__file__).parents[1]
#: Parts of the package whose code may become part of a compiled function; a test compares them with
#: what `phicalc.derivatives` imports.
SOURCES = (
    "architecture", "backbone", "compiled", "derivatives", "electrostatics", "elements", "feedback",
    "graph", "linear", "nn", "potential", "terms", "uncertainty", "units",
)  # fmt: skip
#: Instruction sets among the flags of a processor, which compilers make use of.
_INSTRUCTIONS = re.compile(r"(avx|sse|ssse|fma|bmi|amx|f16c|abm|lzcnt|popcnt|movbe|adx|asimd|sve)")


def cache_folder() -> Path | None:
    """Return the folder of this user, or ``$PHICALC_CACHE``; None for a user without a home."""
    if folder := os.environ.get("PHICALC_CACHE"):
        return Path(folder)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:  # the specification says to ignore a relative path
        return (base if base.is_absolute() else Path.home() / ".cache") / "phicalc"
    except RuntimeError:  # neither $HOME nor an entry in the list of users, as in containers
        return None


def key(potential: Potential, what: object) -> str:
    """Digest of everything that a compiled function depends on; `what` says which it is."""
    parts = {
        "what": what,
        "config": potential.config.to_dict(),
        "weights": model_digest(potential, uncertainty=False),
        "dtype": str(potential.dtype),
        "device": _device_name(potential.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "source": _own_digest(),
        "foreign": _foreign_digest(potential),
        "kernels": kernels_loaded(),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _device_name(device: torch.device) -> str:
    """Name of the processor with its instruction sets, as far as compiled code depends on it."""
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()} {processor()}"


@cache
def processor() -> str:
    """Name and instruction sets of the processor: a home folder may serve several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    found = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    flags = found.get("flags", found.get("Features", "")).split()
    known = sorted(flag for flag in flags if _INSTRUCTIONS.match(flag))
    return " ".join([platform.machine(), found.get("model name", ""), *known])


@cache
def _own_digest() -> str:
    """Digest of the code of this process: files that change while it runs do not count."""
    return source_digest()


def source_digest(package: Path = _PACKAGE) -> str:
    """Digest of the code that may become part of a compiled function."""
    digest = hashlib.sha256()
    for path in _source_files(package):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _source_files(package: Path) -> Iterator[Path]:
    """Files of the parts in `SOURCES`, in a fixed order."""
    for part in SOURCES:
        module, folder = package / f"{part}.py", package / part
        yield from [module] if module.is_file() else sorted(folder.rglob("*.py"))


def _foreign_digest(potential: nn.Module) -> str:
    """Digest of the files that define modules from outside phicalc and torch."""
    kinds = {type(module) for module in potential.modules()}
    own = ("phicalc.", "torch.")
    foreign = [kind for kind in kinds if not kind.__module__.startswith(own)]
    texts = sorted(f"{kind.__module__}:{kind.__qualname__}:{_source_of(kind)}" for kind in foreign)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _source_of(kind: type) -> str:
    """Text of the file that defines a class; empty if there is none."""
    try:
        path = inspect.getsourcefile(kind)
        return Path(path).read_text(encoding="utf-8", errors="replace") if path else ""
    except (OSError, TypeError):  # defined in a terminal
        return ""
