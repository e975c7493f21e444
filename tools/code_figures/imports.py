"""Imports between the modules of a package: cycles, and arrows against the order of its parts."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .source import Module, Package, statements

Arrows = dict[tuple[str, str], int]
"""(importing module, imported module) and the first line."""


class Order(NamedTuple):
    """The order of the parts that ``tests/test_layout.py`` declares."""

    line: tuple[str, ...]
    """A part may import those before it."""
    branches: dict[str, str]
    """Parts beside the line, and the last part of the line that each may import."""
    ends: dict[str, frozenset[str]]
    """Branches that a part may import besides: the last of the line, or another branch."""

    def part_of(self, module: str) -> str:
        """Return the longest declared name that a module lies in, or its first part."""
        names = module.split(".")[1:]
        prefixes = [".".join(names[:end]) for end in range(len(names), 0, -1)]
        declared = {*self.line, *self.branches}
        return next((p for p in prefixes if p in declared), prefixes[-1] if prefixes else "")

    def allows(self, start: str, end: str) -> bool:
        """Whether part `start` may import part `end`."""
        if start == end or start not in {*self.line, *self.branches}:
            return start == end
        last = self.branches.get(start, start)
        free = {*self.line[: self.line.index(last) + 1]} if last in self.line else set()
        return end in free or end in self.ends.get(start, ())


def is_type_checking(node: ast.AST) -> bool:
    """Whether a branch is for type checkers only."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def requests(module: Module) -> Iterator[tuple[str, str | None, int]]:
    """Yield (module, name or None, line) of each import that runs, inside functions too."""
    todo: list[ast.AST] = [module.tree]
    while todo:
        node = todo.pop()
        if is_type_checking(node):
            assert isinstance(node, ast.If)
            todo.extend(node.orelse)
            continue
        todo.extend(statements(node))
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            yield from ((base, alias.name, node.lineno) for alias in node.names)


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def arrows(package: Package) -> Arrows:
    """Return the imports of the package's own modules; re-exports are followed to their source."""
    asked = {name: list(requests(module)) for name, module in package.modules.items()}
    exported = {
        (name, wanted): base
        for name, rows in asked.items()
        if package.modules[name].is_package
        for base, wanted, _ in rows
        if wanted
    }
    found: Arrows = {}
    for name, rows in asked.items():
        for base, wanted, line in rows:
            end = _source(package.modules, exported, base, wanted)
            if end is not None and end != name:
                found[name, end] = min(line, found.get((name, end), line))
    return found


def _source(
    modules: Mapping[str, Module],
    exported: dict[tuple[str, str], str],
    base: str,
    wanted: str | None,
) -> str | None:
    seen = set()
    while wanted and base not in seen:
        seen.add(base)
        if f"{base}.{wanted}" in modules:
            return f"{base}.{wanted}"
        if (base, wanted) not in exported:
            break
        base = exported[base, wanted]
    return base if base in modules else None


def cycles(found: Arrows) -> list[str]:
    """Return the sets of modules that import each other, directly or not (Tarjan's algorithm)."""
    after: dict[str, list[str]] = {}
    for start, end in found:
        after.setdefault(start, []).append(end)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[str] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for end in after.get(module, []):
            if end not in index:
                visit(end)
            if end in stack:
                low[module] = min(low[module], low[end])
        if low[module] == index[module]:
            at = stack.index(module)
            circle, stack[at:] = stack[at:], []
            if len(circle) > 1:
                circles.append(" <-> ".join(sorted(circle)))

    for module in sorted(after):
        if module not in index:
            visit(module)
    return circles


def declared_order(package: Package) -> Order | None:
    """Return the order that the tests of a checkout declare, None if they declare none."""
    file = package.root / "tests" / "test_layout.py"
    if not file.is_file():
        return None
    constants = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            try:
                constants[ast.unparse(target)] = ast.literal_eval(node.value)
            except ValueError:
                continue
    if "LINE" not in constants:
        return None
    line = tuple(constants["LINE"])
    branches = dict(constants.get("BRANCHES", {}))
    given = {part: f"FOR_{part.upper()}" for part in branches} | {line[-1]: "FOR_THE_COMMAND_LINE"}
    ends = {part: frozenset(constants.get(name, ())) for part, name in given.items()}
    return Order(line, branches, ends)


def guessed_order(package: Package, found: Arrows) -> Order:
    """Return an order of the first-level parts that turns few arrows back.

    The heuristic of Eades, Lin and Smyth: parts that import least and are imported most go first.
    """
    bare = Order((), {}, {})
    weight = Counter((bare.part_of(a), bare.part_of(b)) for a, b in found)
    left = {bare.part_of(name) for name in package.modules} - {""}
    line: list[str] = []
    last: list[str] = []
    while left:
        out = {p: sum(weight[p, q] for q in left - {p}) for p in sorted(left)}
        into = {p: sum(weight[q, p] for q in left - {p}) for p in sorted(left)}
        source = next((p for p in out if not out[p]), None)
        sink = next((p for p in out if not into[p]), None)
        chosen = source or sink or max(out, key=lambda p: into[p] - out[p])
        if source is None and sink is not None:
            last.insert(0, chosen)
        else:
            line.append(chosen)
        left.discard(chosen)
    return Order((*line, *last), {}, {})


def back_arrows(package: Package, found: Arrows) -> list[str]:
    """Return the imports against the order of parts.

    The package itself re-exports from all parts and so comes last: what imports from it, ``from
    package import __version__`` too, points back.
    """
    order = declared_order(package) or guessed_order(package, found)
    backward = []
    for (start, end), line in sorted(found.items()):
        parts = order.part_of(start), order.part_of(end)
        if parts[0] and not order.allows(*parts):
            backward.append(f"{package.modules[start].path}:{line} {start} imports {end}")
    return backward


def public_names(package: Package) -> tuple[int, int]:
    """Return the numbers of names in the ``__all__`` of the package, and of all public modules."""
    counts = {name: _exports(m) for name, m in package.modules.items() if m.public}
    return counts.get(package.name, 0), sum(counts.values())


def _exports(module: Module) -> int:
    for node in module.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            lists = [n for n in ast.walk(node) if isinstance(n, ast.List | ast.Tuple)]
            return sum(len(each.elts) for each in lists)
    return 0
