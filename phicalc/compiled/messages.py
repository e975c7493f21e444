"""What compiled inference says to the user."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from phicalc.progress import saying_how_long

logger = logging.getLogger("phicalc")


@contextmanager
def compiling(what: str, folder: Path | None) -> Iterator[None]:
    """Say that compiling begins, every half minute how long it has taken, and when it has ended.

    Parameters
    ----------
    what
        What is compiled.
    folder
        Where it will be kept; None if for this process only.
    """
    logger.warning(
        "compiling %s for %s: at most three minutes on an idle machine, once",
        what,
        folder or "this process",
    )
    with saying_how_long(f"compiling {what}", logger.warning):
        yield


def say_background(folder: Path | None) -> None:
    """Say that compiling goes on elsewhere."""
    logger.warning(
        "compiling in the background for %s; going on uncompiled until it is done, in some minutes",
        folder or "this process",
    )


def say_background_ended(reason: str | None) -> None:
    """Say that it has ended, and why it failed if it did."""
    if reason is None:
        logger.warning("compiled in the background: compiled functions are used from here on")
    else:
        logger.warning("compiling in the background failed, going on uncompiled: %s", reason)


def say_uncompiled(error: Exception) -> None:
    """Say why predictions will be slower."""
    logger.warning(
        "continuing uncompiled, several times slower: %s (compile=False avoids the attempt)",
        _in_a_line(error),
    )


def say_no_kernels(error: Exception) -> None:
    """Say why compiled networks will be slower."""
    logger.warning(
        "compiled networks go without native operations, more slowly: %s", _in_a_line(error)
    )


def say_not_here(device: torch.device) -> None:
    """Say that compiled functions are for the CPU."""
    logger.warning(
        "continuing uncompiled: models are compiled for the CPU, not for %s", device.type
    )


def say_not_captured(error: Exception, fused: bool) -> None:
    """Say why each operation of a step is launched by itself, or computed by itself if `fused`."""
    logger.warning(
        "continuing without %s, several times slower: %s (compile=%s avoids the attempt)",
        "fused operations" if fused else "recorded steps",
        _in_a_line(error),
        '"auto"' if fused else "False",
    )


def say_not_from_edges(name: str, network: nn.Module) -> None:
    """Say which network is compiled as part of whole predictions only, and why."""
    logger.warning(
        "%s (%s) has no method propagate, so structures of many atoms, slabs and batches run "
        "uncompiled (see phicalc.backbone.FromEdges)",
        name,
        type(network).__name__,
    )


def _in_a_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
