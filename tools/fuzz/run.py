"""Many cases in a process of their own, which may hang, crash or run out of memory."""

import ctypes
import importlib
import multiprocessing
import os
import resource
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tools.fuzz.verdicts import FAILED, Outcome, examine

#: Parts by name: the module with ``COUNT`` and ``make_case``.
PARTS = {
    "structures": "tools.fuzz.structures",
    "settings": "tools.fuzz.settings",
    "commands": "tools.fuzz.commands",
    "files": "tools.fuzz.files",
}
#: After so many hangs of a kind the rest of the kind is left out.
MOST_HANGS = 3
SKIPPED = "skipped"
#: Word for a case that is being made, which may compile.
MAKING = "making the case"
#: Option of ``prctl`` (``sys/prctl.h``).
_DIE_WITH_PARENT = 1


class Entry(NamedTuple):
    """What came of one seed."""

    part: str
    seed: int
    kind: str
    text: str
    outcome: Outcome


def default_count(part: str) -> int:
    """Return the number of cases of a part."""
    return int(importlib.import_module(PARTS[part]).COUNT)


def run_here(part: str, seeds: Sequence[int], limit: int = 20) -> list[Entry]:
    """Run cases in this process."""
    make_case = importlib.import_module(PARTS[part]).make_case
    entries = []
    for seed in seeds:
        case = make_case(seed)
        outcome = examine(case, limit)
        entries.append(Entry(part, seed, case.kind, case.text, outcome))
    return entries


def run_apart(part: str, count: int | None, limit: int, memory: float) -> Iterator[Entry]:
    """Run cases in a child; where it dies or hangs for good, another one takes over.

    `memory` bounds the address space in GB.
    """
    context = multiprocessing.get_context("spawn")
    first, hangs = 0, Counter[str]()
    while count is None or first < count:
        mine, theirs = context.Pipe()
        arguments = (theirs, part, first, count, limit, memory, hangs)
        child = context.Process(target=_work, args=arguments, daemon=True)
        child.start()
        theirs.close()
        for message in _messages(mine, child, limit):
            if isinstance(message, int):
                count = message
                continue
            if message.outcome.signature.startswith("hang"):
                hangs[message.kind] += 1
            first = message.seed + 1
            yield message
        child.join()
        if count is None:
            raise RuntimeError(f"the first process of part {part!r} ended before its first case")


def _messages(mine: Connection, child: Any, limit: int) -> Iterator[Any]:
    """Yield what the child sends; ends with an entry about its death unless it has finished."""
    started: Entry | None = None
    try:
        while True:
            at_work = started is not None and started.kind != MAKING
            if not mine.poll(3 * limit + 60 if at_work else 600):
                os.kill(child.pid, 9)
                word = "hang: killed"
                break
            message = mine.recv()
            if message is None:
                return
            if isinstance(message, Entry) and not message.outcome.verdict:
                started = message
                continue
            started = None
            yield message
    except EOFError:
        child.join()
        word = f"the process died (exit code {child.exitcode})"
    if started is not None:
        yield started._replace(outcome=Outcome(FAILED, f"{word}: {started.kind}", word))


def _work(
    pipe: Connection,
    part: str,
    first: int,
    count: int | None,
    limit: int,
    memory: float,
    hangs: Counter[str],
) -> None:
    """Run cases one by one and send each before and after."""
    size = int(memory * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # a worker that hangs must not outlive a parent that was killed
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    module = importlib.import_module(PARTS[part])
    count = module.COUNT if count is None else count
    pipe.send(count)
    found: dict[str, int] = defaultdict(int, hangs)
    for seed in range(first, count):
        pipe.send(Entry(part, seed, MAKING, "", Outcome("")))
        case = module.make_case(seed)
        if found[case.kind] >= MOST_HANGS:
            pipe.send(Entry(part, seed, case.kind, case.text, Outcome(SKIPPED)))
            continue
        pipe.send(Entry(part, seed, case.kind, case.text, Outcome("")))
        outcome = examine(case, limit)
        found[case.kind] += outcome.signature.startswith("hang")
        pipe.send(Entry(part, seed, case.kind, case.text, outcome))
    pipe.send(None)
