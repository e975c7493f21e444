"""Annotations of arguments, and shapes of tensors and arrays in signatures."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .source import FUNCTIONS, Definition, Function, Package

#: Types of jaxtyping that take an array type and a shape.
SHAPED = {
    *("Bool", "Complex", "Complex64", "Complex128", "Float", "Float16", "Float32", "Float64"),
    *("BFloat16", "Inexact", "Int", "Int8", "Int16", "Int32", "Int64", "Integer", "Key", "Num"),
    *("Real", "Shaped", "UInt", "UInt8", "UInt16", "UInt32", "UInt64"),
}
ARRAYS = {"NDArray", "Tensor", "ndarray"}


class Share(NamedTuple):
    """How many of some hold to a rule, and the rest."""

    total: int
    offenders: list[str]

    @property
    def percent(self) -> float:
        """Share that holds to the rule, in per cent; 100 of none."""
        return 100 * (1 - len(self.offenders) / self.total) if self.total else 100.0

    def __str__(self) -> str:
        held = self.total - len(self.offenders)
        return f"{int(self.percent)} % ({held} of {self.total})"


def arguments(function: Definition) -> list[ast.arg]:
    """Return the arguments of a function, without ``self`` and ``cls``."""
    assert isinstance(function.node, FUNCTIONS)
    given = function.node.args
    positional = [*given.posonlyargs, *given.args]
    if function.owner is not None and "staticmethod" not in function.decorators:
        positional = positional[1:]
    stars = [argument for argument in (given.vararg, given.kwarg) if argument]
    return [*positional, *given.kwonlyargs, *stars]


def annotated_arguments(package: Package) -> Share:
    """Return the share of arguments that have an annotation."""
    every = [(f, argument) for f in package.functions for argument in arguments(f)]
    bare = [f"{f.where} ({a.arg})" for f, a in every if a.annotation is None]
    return Share(len(every), bare)


def is_record(definition: Definition) -> bool:
    """Whether a class is a NamedTuple, TypedDict or dataclass: its fields are a signature."""
    assert isinstance(definition.node, ast.ClassDef)
    bases = {last_name(base) for base in definition.node.bases}
    return bool(bases & {"NamedTuple", "TypedDict"}) or "dataclass" in definition.decorators


def fields(definition: Definition) -> list[tuple[str, ast.AnnAssign]]:
    """Return the annotated fields of a record."""
    return [
        (node.target.id, node)
        for node in definition.node.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]


def last_name(node: ast.AST) -> str:
    """Return the last name of a dotted expression, empty for any other."""
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def aliases(package: Package) -> dict[str, ast.expr]:
    """Return the type aliases of modules that contain arrays: ``Solver = Callable[…]``."""
    found: dict[str, ast.expr] = {}
    for module in package.modules.values():
        for node in module.tree.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(node.value, ast.Subscript | ast.BinOp) and any_array(node.value):
                found[last_name(target)] = node.value
    return found


def any_array(node: ast.AST) -> bool:
    """Whether a type contains arrays, with or without shapes."""
    return next(mentions(node), None) is not None


def mentions(node: ast.AST, known: dict[str, ast.expr] | None = None) -> Iterator[bool]:
    """Yield for each array type in an annotation whether it has a shape."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            yield from mentions(ast.parse(node.value, mode="eval").body, known)
        except SyntaxError:
            return
    elif isinstance(node, ast.Subscript) and last_name(node) in SHAPED:
        yield isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2
    elif isinstance(node, ast.Name | ast.Attribute):
        if last_name(node) in ARRAYS:
            yield False
        elif known and last_name(node) in known:
            rest = {name: value for name, value in known.items() if name != last_name(node)}
            yield from mentions(known[last_name(node)], rest)
    else:
        literal = isinstance(node, ast.Subscript) and last_name(node) == "Literal"
        for child in [] if literal else ast.iter_child_nodes(node):
            yield from mentions(child, known)


def annotated_names(definition: Definition) -> list[tuple[str, ast.expr]]:
    """Return the annotated names of a signature: arguments and ``return``, or fields."""
    if isinstance(definition.node, ast.ClassDef):
        return [(name, node.annotation) for name, node in fields(definition)]
    found = [(a.arg, a.annotation) for a in arguments(definition) if a.annotation]
    node: Function = definition.node
    return [*found, *([("return", node.returns)] if node.returns else [])]


def shapes(package: Package, public: bool) -> Share:
    """Return the share of signatures with arrays in which each array has its shape."""
    known = aliases(package)
    records = [d for d in package.classes if is_record(d)]
    total, offenders = 0, []
    for signature in (*package.functions, *records):
        if signature.public is not public:
            continue
        found = {name: list(mentions(node, known)) for name, node in annotated_names(signature)}
        total += any(found.values())
        bare = [name for name, each in found.items() if not all(each)]
        if bare:
            offenders.append(f"{signature.where}: {', '.join(bare)}")
    return Share(total, offenders)
