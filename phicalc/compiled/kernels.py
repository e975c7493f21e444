"""Native operations, which are faster than what compilers make: built once for each machine."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import torch

from phicalc.backbone.kernel_source import source
from phicalc.backbone.native import kernels_loaded, load_kernels
from phicalc.compiled.cache import processor
from phicalc.compiled.messages import say_no_kernels
from phicalc.compiled.store import Store
from phicalc.compiled.tracing import Function

_FLAGS = (
    "-std=gnu++20", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared",
    "-Wno-psabi",
)  # fmt: skip
#: Folders for which building has failed in this process.
_failed: set[Path | None] = set()


class LibraryStore(Store):
    """Libraries in one folder, kept as compiled functions are."""

    suffix = "so"

    @staticmethod
    def read(path: Path) -> Function:
        """Load a library; what it holds are operations of torch."""
        load_kernels(path)
        function: Function = torch.ops.phicalc.convolve
        return function


def prepare_kernels(folder: Path | None, compiling: bool) -> bool:
    """Load the native operations; say whether this process has them.

    Parameters
    ----------
    folder
        Where they are kept, see `phicalc.compiled.store.Store`.
    compiling
        Whether to build them if they are not there.
    """
    if kernels_loaded() or folder in _failed:
        return kernels_loaded()
    text = source()
    parts = [text, torch.__version__, processor(), _compiler(), *_FLAGS]
    name = f"kernels-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}"
    write = (lambda paths: _build(text, paths[0])) if compiling else None
    try:
        LibraryStore(folder).obtain([name], "native operations", write)
    except Exception as error:  # compilers, and systems that refuse to load what they have made
        _failed.add(folder)
        say_no_kernels(error)
    return kernels_loaded()


def _compiler() -> str:
    """Return the C++ compiler, the one that torch takes."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def _build(text: str, path: Path) -> None:
    """Compile to a library.

    Raises
    ------
    OSError
        If there is no compiler, or it fails.
    """
    # This import loads much that a process which builds nothing can spare.
    from torch.utils.cpp_extension import include_paths, library_paths

    program = path.with_suffix(".cpp")
    program.write_text(text, encoding="utf-8")
    linking = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    command = [
        _compiler(), *_FLAGS, *(f"-I{folder}" for folder in include_paths()), str(program),
        "-o", str(path), *(f"-L{folder}" for folder in library_paths()),
        "-ltorch", "-ltorch_cpu", "-lc10", *linking,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    program.unlink()
    if done.returncode:
        said = next((x for x in done.stderr.splitlines() if "error" in x), done.stderr[-200:])
        raise OSError(f"{command[0]} failed: {said}")
