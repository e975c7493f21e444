"""Read a package: its modules, their lines of code, their definitions."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NOT_THE_PACKAGE = {"benchmarks", "docs", "examples", "models", "scripts", "test", "tests", "tools"}
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


@dataclass(frozen=True)
class Definition:
    """A function or class and its place; hidden if any name on the way begins with ``_``."""

    module: Module
    node: Function | ast.ClassDef
    name: str
    """Dotted name within the module."""
    public: bool
    owner: ast.ClassDef | None
    """The class of a method."""

    @property
    def where(self) -> str:
        """Return ``file:line name``, as editors open it."""
        return f"{self.module.path}:{self.node.lineno} {self.name}"

    @property
    def dunder(self) -> bool:
        """Whether the name has double underscores on both sides."""
        return is_dunder(self.node.name)

    @property
    def decorators(self) -> set[str]:
        """Last names of the decorators: ``functools.cached_property`` → ``cached_property``."""
        found = (d.func if isinstance(d, ast.Call) else d for d in self.node.decorator_list)
        return {ast.unparse(d).rpartition(".")[2] for d in found}

    @property
    def lines_of_code(self) -> int:
        """Lines of code from ``def`` to the end, signature and inner functions included."""
        span = range(self.node.lineno, (self.node.end_lineno or self.node.lineno) + 1)
        return sum(line in self.module.code for line in span)


@dataclass(frozen=True)
class Module:
    """A source file, parsed."""

    name: str
    path: Path
    """Relative to the checkout."""
    text: str
    tree: ast.Module = field(repr=False)

    @property
    def is_package(self) -> bool:
        """Whether this is the ``__init__.py`` of a package."""
        return self.path.name == "__init__.py"

    @property
    def public(self) -> bool:
        """Whether no part of the dotted name begins with an underscore."""
        return not any(hidden(part) for part in self.name.split("."))

    @cached_property
    def docstring_lines(self) -> set[int]:
        """Lines of strings that stand as statements: docstrings, also those of attributes."""
        return {
            line
            for node in statements(self.tree, deep=True)
            if isinstance(node, ast.Expr) and text_of(node) is not None
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }

    @cached_property
    def code(self) -> set[int]:
        """Lines that are not blank, comment or docstring."""
        found: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in NOT_CODE:
                found.update(range(token.start[0], token.end[0] + 1))
        blank = {i for i, line in enumerate(self.text.splitlines(), 1) if not line.strip()}
        return found - blank - self.docstring_lines

    @cached_property
    def definitions(self) -> list[Definition]:
        """All functions and classes, at every depth."""
        return list(self._definitions(self.tree, "", self.public, None))

    def _definitions(
        self, parent: ast.AST, prefix: str, public: bool, owner: ast.ClassDef | None
    ) -> Iterator[Definition]:
        for node in statements(parent):
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                seen = public and not hidden(node.name)
                yield Definition(self, node, prefix + node.name, seen, owner)
                is_class = isinstance(node, ast.ClassDef)
                inside = node if isinstance(node, ast.ClassDef) else None
                yield from self._definitions(
                    node, f"{prefix}{node.name}.", seen and is_class, inside
                )
            else:
                yield from self._definitions(node, prefix, public, owner)


@dataclass(frozen=True)
class Package:
    """The modules of the package in a checkout."""

    root: Path
    name: str
    modules: dict[str, Module]

    @cached_property
    def functions(self) -> list[Definition]:
        """All functions and methods, those inside functions included."""
        return [d for d in self._all() if isinstance(d.node, FUNCTIONS)]

    @cached_property
    def classes(self) -> list[Definition]:
        """All classes."""
        return [d for d in self._all() if isinstance(d.node, ast.ClassDef)]

    def _all(self) -> Iterator[Definition]:
        for module in self.modules.values():
            yield from module.definitions


def statements(parent: ast.AST, deep: bool = False) -> Iterator[ast.AST]:
    """Yield the statements and handlers in a node, or with `deep` all below it."""
    for block in ("body", "handlers", "orelse", "finalbody", "cases"):
        inside = getattr(parent, block, None)
        for node in inside if isinstance(inside, list) else []:
            yield node
            if deep:
                yield from statements(node, deep)


def hidden(name: str) -> bool:
    """Whether a name is private: ``_x`` and ``__x``, but not ``__x__``."""
    return name.startswith("_") and not is_dunder(name)


def is_dunder(name: str) -> bool:
    """Whether a name has double underscores on both sides."""
    return name.startswith("__") and name.endswith("__")


def text_of(statement: ast.AST) -> str | None:
    """Return the text of a string that stands as a statement, None for any other."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    literal = value.value if isinstance(value, ast.Constant) else None
    return literal if isinstance(literal, str) else None


def package_folder(root: Path) -> Path:
    """Return the folder of the package: the largest in the checkout or in its ``src``.

    Raises
    ------
    FileNotFoundError
        If no folder there has an ``__init__.py``.
    """
    if (root / "__init__.py").is_file():
        return root
    found = [file.parent for place in (root, root / "src") for file in place.glob("*/__init__.py")]
    found = [folder for folder in found if folder.name not in NOT_THE_PACKAGE]
    if not found:
        raise FileNotFoundError(f"no package (a folder with __init__.py) in {root} or {root}/src")
    return max(found, key=lambda folder: sum(1 for _ in folder.rglob("*.py")))


def read_package(root: Path) -> Package:
    """Parse the package of a checkout.

    Raises
    ------
    FileNotFoundError
        If there is no package.
    """
    root = root.resolve()
    folder = package_folder(root)
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, path.relative_to(root), text, ast.parse(text))
    return Package(root, folder.name, modules)
