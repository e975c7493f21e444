"""All figures of a checkout, the aims for them, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .docstrings import documented, raises, units
from .imports import arrows, back_arrows, cycles, public_names
from .signatures import Share, annotated_arguments, shapes
from .sizes import complexity, spread
from .source import Package, read_package

MAX_FILE = 350
LONG_FUNCTION = 20


class Row(NamedTuple):
    """One figure."""

    label: str
    text: str
    value: float | None = None
    """What the aim is held against."""
    aim: str = ""
    """``<= 20`` or ``>= 80``, empty without an aim."""

    @property
    def met(self) -> bool:
        """Whether the aim is met; rows without one always are."""
        if not self.aim or self.value is None:
            return True
        sign, bound = self.aim.split()
        return self.value <= float(bound) if sign == "<=" else self.value >= float(bound)


class Figures(NamedTuple):
    """Figures of a checkout."""

    root: Path
    rows: list[Row]
    lists: dict[str, list[str]]
    """What falls short, by the word for ``--list``."""

    @property
    def missed(self) -> list[Row]:
        """Rows whose aim is missed."""
        return [row for row in self.rows if not row.met]


LISTS = ("shapes", "units", "raises", "documented", "functions", "files", "cycles", "arrows")


def measure(root: Path) -> Figures:
    """Measure a checkout.

    Raises
    ------
    FileNotFoundError
        If there is no package in it.
    """
    package = read_package(root)
    found = arrows(package)
    shares = {
        "public": shapes(package, public=True),
        "private": shapes(package, public=False),
        "units": units(package),
        "raises": raises(package),
        "documented": documented(package),
    }
    circles, backward = cycles(found), back_arrows(package, found)
    rows = [
        *_size_rows(package),
        *_docstring_rows(package, shares),
        Row("import cycles", str(len(circles)), len(circles), "<= 0"),
        Row("back-arrows", str(len(backward)), len(backward), "<= 0"),
        _names(package),
        _tests(package),
    ]
    lists = {
        "shapes": [
            f"{line} ({kind})" for kind in ("public", "private") for line in shares[kind].offenders
        ],
        **{name: shares[name].offenders for name in ("units", "raises", "documented")},
        "functions": _long_functions(package),
        "files": [f"{path}: {n} lines" for n, path in _files(package) if n > MAX_FILE],
        "cycles": circles,
        "arrows": backward,
    }
    return Figures(package.root, rows, lists)


def _files(package: Package) -> list[tuple[int, Path]]:
    """Files by lines, the longest first."""
    return sorted(((m.text.count("\n"), m.path) for m in package.modules.values()), reverse=True)


def _long_functions(package: Package) -> list[str]:
    counted = sorted(((f.lines_of_code, f.where) for f in package.functions), reverse=True)
    return [f"{where}: {n} lines of code" for n, where in counted if n > LONG_FUNCTION]


def _size_rows(package: Package) -> list[Row]:
    modules = [len(m.code) for m in package.modules.values()]
    strings = sum(len(m.docstring_lines) for m in package.modules.values())
    functions = [f.lines_of_code for f in package.functions]
    of_functions = spread(functions)
    lengths = [n for n, _ in _files(package)]
    over = [sum(n > limit for n in functions) for limit in (60, 40, LONG_FUNCTION)]
    found = complexity(package)
    return [
        Row("lines of code", str(sum(modules))),
        Row("docstring/code", f"{strings / max(1, sum(modules)):.2f}"),
        Row("module code p50/p90/max", str(spread(modules))),
        Row("largest files (lines)", ", ".join(map(str, lengths[:4])), lengths[0], "<= 350"),
        Row("function code p50/p90/max", str(of_functions), of_functions.p90, "<= 20"),
        Row("functions > 60 (> 40, > 20)", f"{over[0]} ({over[1]}, {over[2]})"),
        Row("cyclomatic p50/p90/max (ruff)", str(found.cyclomatic) if found else "–"),
        Row("C901+PLR0912+PLR0915, noqa ignored", str(found.too_complex) if found else "–"),
    ]


def _docstring_rows(package: Package, shares: dict[str, Share]) -> list[Row]:
    labels = {
        "documented": ("public definitions documented", ""),
        "public": ("public signatures with shapes", ">= 100"),
        "private": ("private signatures with shapes", ">= 80"),
        "units": ("units where public quantities are", ">= 90"),
        "raises": ("public functions that raise and say so", ">= 95"),
    }
    return [
        Row("arguments annotated", str(annotated_arguments(package))),
        *(
            Row(label, str(shares[name]), shares[name].percent, aim)
            for name, (label, aim) in labels.items()
        ),
    ]


def _names(package: Package) -> Row:
    top, every = public_names(package)
    defined = [d for d in (*package.functions, *package.classes) if "." not in d.name and d.public]
    text = f"{top} ({every}; {len(defined)})"
    return Row("names in top `__all__` (all `__all__`; public definitions)", text)


def _tests(package: Package) -> Row:
    lines = sum(n for n, _ in _files(package))
    tests = sum(
        file.read_text(encoding="utf-8", errors="replace").count("\n")
        for file in (package.root / "tests").rglob("*.py")
    )
    return Row("test lines / package lines", f"{tests / max(1, lines):.2f}")


def table(measured: Sequence[Figures]) -> str:
    """Return a markdown table, one column for each checkout; ``✗`` marks a missed aim."""
    names = [figures.root.name for figures in measured]
    if len(set(names)) < len(names):
        names = [str(figures.root) for figures in measured]
    lines = [["", *names, "aim"], ["---"] * (len(names) + 2)]
    for rows in zip(*(figures.rows for figures in measured), strict=True):
        cells = [row.text if row.met else f"{row.text} ✗" for row in rows]
        lines.append([rows[0].label, *cells, rows[0].aim])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
