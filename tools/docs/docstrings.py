"""Docstrings as Markdown: tables of reStructuredText, examples and literal blocks."""

from __future__ import annotations

import re

from .markdown import table

_RULE = re.compile(r"=+( +=+)+ *")


def readable(text: str) -> str:
    """Return a docstring in which tables are those of Markdown, and examples blocks of code."""
    lines, made = text.splitlines(), []
    while lines:
        if _RULE.fullmatch(lines[0]):
            end = [n for n, line in enumerate(lines) if _RULE.fullmatch(line)][-1]
            made += ["", *_table(lines[: end + 1]).splitlines(), ""]
            lines = lines[end + 1 :]
        elif lines[0].startswith(">>> "):
            end = lines.index("") if "" in lines else len(lines)
            made += ["```pycon", *(line.split("  # doctest")[0] for line in lines[:end]), "```"]
            lines = lines[end:]
        else:
            made.append(re.sub("::$", ":", lines.pop(0)))
    return "\n".join(made)


def _table(lines: list[str]) -> str:
    """Return a simple table of reStructuredText as one of Markdown."""
    starts = [found.start() for found in re.finditer("=+", lines[0])]
    rows: list[list[str]] = []
    for line in lines[1:-1]:
        if _RULE.fullmatch(line):
            continue
        ends = [*starts[1:], len(line)]
        cells = [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
        if cells[0]:
            rows.append(cells)
        else:  # the row before goes on
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)]
    has_header = _RULE.fullmatch(lines[2]) is not None
    header = rows.pop(0) if has_header else [""] * len(starts)
    return table([cell.replace("``", "`") for cell in header], rows)
