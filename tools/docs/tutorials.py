"""Tutorials: Python files in cells, executed into pages with pictures, and into notebooks.

A tutorial is a Python file in which ``# %% [markdown]`` begins a cell of text (every line a
comment) and ``# %%`` a cell of code. Each is run in a process and a folder of its own:

    python -m tools.docs.tutorials docs/tutorials/water.py FOLDER

writes ``FOLDER/water.md``, ``water.ipynb``, the pictures, and the HTML pages that its cells write.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from .markdown import ROOT, embedded

FOLDER = ROOT / "docs" / "tutorials"


@dataclass
class Cell:
    """A cell, and what came of it."""

    kind: str
    """``markdown`` or ``code``."""
    source: str
    output: str = ""
    pictures: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    """HTML pages that it has written."""


def tutorials() -> list[Path]:
    """Return the files of all tutorials."""
    return sorted(FOLDER.glob("*.py"))


def cells_of(text: str) -> list[Cell]:
    """Divide a file into cells."""
    cells: list[Cell] = []
    for line in text.splitlines():
        if line.startswith("# %%"):
            cells.append(Cell("markdown" if "[markdown]" in line else "code", ""))
        elif cells and cells[-1].kind == "markdown":
            cells[-1].source += line.removeprefix("#").removeprefix(" ") + "\n"
        elif cells:
            cells[-1].source += line + "\n"
    for cell in cells:
        cell.source = cell.source.strip("\n")
    return [cell for cell in cells if cell.source]


def execute(cells: list[Cell], folder: Path, stem: str) -> None:
    """Run the cells of code one after the other; an error ends it.

    What they print, their last expression and the figures they draw are put into them; figures are
    saved as ``STEM-N.png`` in the folder, HTML pages that they write as ``STEM-NAME.html``.
    """
    import matplotlib.pyplot as plt

    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if cell.kind == "markdown":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            value = _run(cell.source, space)
        said = [f"{each.category.__name__}: {each.message}" for each in caught]
        said = [textwrap.fill(each, 84, subsequent_indent="  ") + "\n" for each in said]
        shown = f"{value!r}\n" if value is not None else ""
        cell.output = printed.getvalue() + "".join(dict.fromkeys(said)) + shown
        for number in plt.get_fignums():
            name = f"{stem}-{sum(len(each.pictures) for each in cells)}.png"
            plt.figure(number).savefig(folder / name, dpi=110, bbox_inches="tight")
            cell.pictures.append(name)
        plt.close("all")
        for path in sorted(Path().glob("*.html")):
            shutil.move(path, folder / f"{stem}-{path.name}")
            cell.views.append(f"{stem}-{path.name}")


def page_of(cells: list[Cell], stem: str, footer: str) -> str:
    """Return the page."""
    parts = []
    for cell in cells:
        if cell.kind == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        if cell.output.strip():
            parts.append(f'```text title="output"\n{cell.output.rstrip()}\n```')
        parts += [f"![what the block above draws]({name})" for name in cell.pictures]
        parts += [embedded(name, "what the block above shows") for name in cell.views]
    parts.append(f"---\n\n{footer} [Notebook]({stem}.ipynb) · [script]({stem}.py)")
    return "\n\n".join(parts) + "\n"


def notebook_of(cells: list[Cell]) -> str:
    """Return the tutorial as a notebook, without outputs."""
    entries: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        entry: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell-{number}", "metadata": {}}
        entry["source"] = cell.source.splitlines(keepends=True)
        if cell.kind == "code":
            entry |= {"outputs": [], "execution_count": None}
        entries.append(entry)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": entries, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    return json.dumps({**whole, "nbformat_minor": 5}, ensure_ascii=False, indent=1) + "\n"


def write(script: Path, folder: Path, run: bool) -> None:
    """Write page and notebook of a tutorial, executed or as it stands."""
    cells, stem = cells_of(script.read_text(encoding="utf-8")), script.stem
    footer = "Not executed in this build."
    if run:
        start = perf_counter()
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            execute(cells, folder, stem)
        footer = f"Executed when this page was built, in {perf_counter() - start:.0f} s."
    (folder / f"{stem}.md").write_text(page_of(cells, stem, footer), encoding="utf-8")
    (folder / f"{stem}.ipynb").write_text(notebook_of(cells), encoding="utf-8")


def build_all(folder: Path, *, run: bool, jobs: int) -> list[Path]:
    """Write the pages of all tutorials, so many at a time; return the files.

    Raises
    ------
    RuntimeError
        If a tutorial fails, with the end of what it said.
    """
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])

    def build(script: Path) -> None:
        command = [sys.executable, "-m", "tools.docs.tutorials", str(script), str(folder)]
        command += [] if run else ["--plain"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{script.name} failed:\n{done.stderr[-3000:]}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(build, tutorials()))
    return sorted(folder.iterdir())


def _run(source: str, space: dict[str, Any]) -> object:
    """Run a cell and return the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "<cell>", "exec"), space)
        return None
    tree.body.pop()
    exec(compile(tree, "<cell>", "exec"), space)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]).resolve(), run="--plain" not in sys.argv)
