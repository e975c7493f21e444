"""Compilation that nobody waits for: in another process, while predictions go on uncompiled."""

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import torch

from phicalc.compiled.messages import say_background, say_background_ended
from phicalc.compiled.predictor import CompiledPredictor
from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph
from phicalc.potential import Potential

#: What the other process runs: a script of the user's would be run again by ``multiprocessing``.
_COMMAND = (sys.executable, "-c", "from phicalc.compiled.background import serve; serve()")
#: How much it gives way to other processes, and seconds between its looks at whether this lives.
_NICENESS, _WATCH = 10, 1.0


class Task(NamedTuple):
    """What is to be compiled."""

    potential: Potential
    graph: AtomicGraph
    stress: bool
    folder: Path | None
    threads: int


class BackgroundPredictor:
    """`predict` for one potential: with compiled functions where there are any, else plain.

    What is missing is compiled by another process, one kind of structure after the other, and used
    from the first call after it is there. Results then change within the agreement of compiled and
    plain ones, at a moment that depends on the machine: runs cannot be repeated bit for bit.

    Parameters
    ----------
    potential, folder
        As for `CompiledPredictor`.
    """

    #: Number of atoms of the largest structure to plan without a mesh.
    mesh_above = CompiledPredictor.mesh_above

    def __init__(self, potential: Potential, folder: Path | None = None):
        self.inner = CompiledPredictor(potential, "auto", folder)
        self.asked: set[object] = set()
        self._child: Child | None = None

    @property
    def planning(self) -> Potential:
        """The potential, which prepares structures."""
        return self.inner.planning

    def __getstate__(self) -> dict[str, object]:
        """Leave the other process out: a copy starts its own."""
        return {**self.__dict__, "asked": set(), "_child": None}

    def __call__(self, graph: AtomicGraph, *, stress: bool = False) -> Prediction:
        """Return energies (eV), forces (eV/Å) and so on; see `phicalc.derivatives.predict`."""
        if self._child is not None and self._child.has_ended():
            say_background_ended(self._child.reason())
            self._child = None
            self.inner.forget()
        found = self.inner(graph, stress=stress)
        if self._child is None:
            self._ask_for_what_is_missing(graph, stress)
        return found

    def _ask_for_what_is_missing(self, graph: AtomicGraph, stress: bool) -> None:
        """Start another process if it has not been tried for this kind of structure."""
        missing = self.inner.missing(graph, stress)
        if missing is None or missing in self.asked:
            return
        self.asked.add(missing)
        threads = torch.get_num_threads()
        self._child = Child(Task(self.inner.potential, graph, stress, self.inner.folder, threads))
        say_background(self.inner.folder)


class Child:
    """A process that compiles for one kind of structure, and ends with this one."""

    def __init__(self, task: Task):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 # read after the process
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors
        )
        sending = threading.Thread(target=_send, args=(self._process, pickle.dumps(task)))
        sending.start()
        weakref.finalize(self, _end, self._process, self._errors, sending)

    def has_ended(self) -> bool:
        """Whether it has done what it could."""
        return self._process.poll() is not None

    def reason(self) -> str | None:
        """Return why it failed, after its end; None if it did not."""
        if not self._process.returncode:
            return None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def _send(process: "subprocess.Popen[bytes]", payload: bytes) -> None:
    """Hand over the task; a process that has ended does not want it."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(payload)


def _end(process: "subprocess.Popen[bytes]", errors: IO[bytes], sending: threading.Thread) -> None:
    """End the process and what belongs to it."""
    process.kill()
    process.wait()
    sending.join()
    errors.close()


def serve() -> None:
    """Compile what the parent process asks for through standard input, and nothing else."""
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent, os._exit), daemon=True).start()
    os.nice(_NICENESS)
    task = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(task.threads)
    predictor = CompiledPredictor(task.potential, True, task.folder)
    predictor(task.graph, stress=task.stress)
    if predictor.missing(task.graph, task.stress) is not None:
        sys.exit(1)


def _end_with(parent: int, end: Callable[[int], object]) -> None:
    """End this process as soon as it has another parent."""
    while os.getppid() == parent:
        time.sleep(_WATCH)
    end(1)
