"""Print the figures of one or several checkouts: ``python -m tools.code_figures [PATH …]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .figures import LISTS, measure, table

HERE = Path(__file__).resolve().parents[2]


def main(words: list[str] | None = None) -> int:
    """Print the table or a list; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.code_figures", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, default=[HERE], help="checkouts to measure")
    parser.add_argument("--list", choices=LISTS, help="list what falls short instead")
    parser.add_argument("--check", action="store_true", help="fail if the last path misses an aim")
    given = parser.parse_args(words)
    try:
        measured = [measure(path) for path in given.paths]
    except (FileNotFoundError, SyntaxError) as error:
        parser.error(str(error))
    if given.list:
        print("\n".join(line for figures in measured for line in figures.lists[given.list]))
    else:
        print(table(measured))
    missed = measured[-1].missed if given.check else []
    for row in missed:
        print(f"missed: {row.label} is {row.text}, aim {row.aim}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
