"""``python -m tools.fuzz [--part PART] [--only PART:SEED] [--count N] [--verbose]``."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable

from tools.fuzz.run import PARTS, Entry, run_apart, run_here
from tools.fuzz.verdicts import FAILED


def main() -> int:
    """Run the cases that the arguments name; 1 if one of them failed."""
    options = _parser().parse_args()
    if options.only:
        return max([_replay(only, options.limit) for only in options.only])
    failures = 0
    for part in options.part or PARTS:
        start = time.monotonic()
        entries = list(_shown(run_apart(part, options.count, options.limit, options.memory)))
        failed = [entry for entry in entries if entry.outcome.verdict == FAILED]
        counts = Counter(entry.outcome.verdict for entry in entries)
        table = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
        print(f"\n{part}: {len(entries)} inputs in {time.monotonic() - start:.0f} s: {table}")
        _print_groups(failed, options.verbose)
        failures += len(failed)
    print(f"\n{failures} failures")
    return int(failures > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="run this part only")
    parser.add_argument(
        "--only", action="append", metavar="PART:SEED", help="repeat one case, with its error"
    )
    parser.add_argument("--count", type=int, help="cases of each part (default: of the part)")
    parser.add_argument("--limit", type=int, default=20, help="seconds of the processor for a case")
    parser.add_argument("--memory", type=float, default=6.0, help="GB of address space")
    parser.add_argument("--verbose", action="store_true", help="list every failure")
    return parser


def _replay(only: str, limit: int) -> int:
    """Run one case in this process and show everything about it."""
    part, _, seed = only.partition(":")
    if part not in PARTS or not seed.isdigit():
        sys.exit(f"--only reads PART:SEED with a part of {', '.join(PARTS)}, got {only!r}")
    (entry,) = run_here(part, [int(seed)], limit)
    print(f"{only} ({entry.kind}): {entry.text}")
    print(f"{entry.outcome.verdict}  {entry.outcome.signature}\n{entry.outcome.detail}")
    return int(entry.outcome.verdict == FAILED)


def _shown(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Pass entries on, with a sign of life on terminals."""
    for entry in entries:
        if sys.stderr.isatty():
            print(f"\r{entry.part} {entry.seed}", end="", file=sys.stderr, flush=True)
        yield entry


def _print_groups(failed: list[Entry], verbose: bool) -> None:
    """Print failures by signature, the most frequent first."""
    groups: dict[str, list[Entry]] = {}
    for entry in failed:
        groups.setdefault(entry.outcome.signature, []).append(entry)
    for signature, entries in sorted(groups.items(), key=lambda item: -len(item[1])):
        first = entries[0]
        print(f"{len(entries):>5} ×  {signature}")
        for entry in entries if verbose else [first]:
            print(f"         --only {entry.part}:{entry.seed}  {entry.text[:200]}")
            print(f"         {entry.outcome.detail[:240]}")


if __name__ == "__main__":
    sys.exit(main())
