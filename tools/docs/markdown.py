"""Small pieces of Markdown, and mathematics as MathML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Pages of the site that are files of the repository elsewhere than in `docs`.
REPOSITORY = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "results.md": "tests/benchmarks/RESULTS.md",
}
#: Where those results compare the speed of potentials.
PEERS_HEADING = "## A step of dynamics beside other potentials"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; bars inside of cells are escaped."""
    lines = [list(header), ["---"] * len(header), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def embedded(address: str, title: str) -> str:
    """Return a frame that shows another page, which is loaded when it is scrolled to."""
    return f'<iframe class="view" src="{address}" title="{title}" loading="lazy"></iframe>\n'


def first_table(text: str, heading: str) -> str:
    """Return the first table below a heading of a page.

    Raises
    ------
    ValueError
        If there is no such heading, or no table below it before the next.
    """
    _, found, below = f"\n{text}".partition(f"\n{heading}\n")
    section = re.split(r"^#", below, maxsplit=1, flags=re.MULTILINE)[0]
    lines = re.search(r"^\|.*\n(?:\|.*\n)*", section, re.MULTILINE)
    if not found or not lines:
        raise ValueError(f"no table below {heading!r}")
    return lines[0]


def between(text: str, name: str, new: str) -> str:
    """Replace what stands between the comments ``<!-- NAME … -->`` and ``<!-- end of NAME -->``.

    Raises
    ------
    ValueError
        If the text lacks them.
    """
    pattern = re.compile(rf"(<!-- {name}[^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no lines <!-- {name} --> and <!-- end of {name} -->")
    return pattern.sub(lambda found: found[1] + new + found[2], text)


def math(source: str, *_: object, **__: object) -> str:
    """Return a block of LaTeX as MathML: the formatter of ```` ```math ```` fences."""
    from latex2mathml.converter import convert

    return "".join(
        f"<div class=equation>{convert(line, display='block')}</div>"
        for line in source.split("\n\n")
    )
