"""Docstrings: who has one, who names units, who says what is raised."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .signatures import SHAPED, Share, arguments, fields, is_record, last_name
from .source import FUNCTIONS, Definition, Package, statements, text_of

#: Words of names that stand for a quantity with a unit.
QUANTITY = re.compile(
    r"(?:^|_)(?:positions?|displacements?|distances?|lengths?|widths?|radius|radii|cutoff|skin"
    r"|cell|lattice|volumes?|smearing|energy|energies|forces?|stress(?:es)?|virial|hessian"
    r"|charges?|dipoles?|fields?|potentials?|hardness|electronegativity|polarizabilit(?:y|ies)"
    r"|temperatures?|pressures?|times?|timestep|velocity|velocities|moment(?:um|a)|mass(?:es)?"
    r"|density|densities|frequency|frequencies|wavenumbers?|fmax|smax)(?:$|_)"
)
#: Names with one of these words are counts, switches or pure numbers.
NO_QUANTITY = re.compile(
    r"(?:^|_)(?:n|num|number|count|index|indices|steps?|weights?|factor|fraction|ratio|power|mask"
    r"|is|has)(?:$|_)"
)
#: The same words in prose.
IN_PROSE = re.compile(QUANTITY.pattern.replace(r"(?:^|_)", r"\b").replace(r"(?:$|_)", r"\b"))

REALS = {"ArrayLike", "NDArray", "Quantity", "Tensor", "float", "ndarray"}
#: A unit. Single letters count only where a unit can stand: "in e", "0.5 V/", "(K)", "eV/e".
UNIT = re.compile(
    r"Å|Angstr[oö]m|\b[mk]?eV|\b[kMG]?Pa\b|\bk?bar\b|\b[nfpµm]s\b|\b[pn]m\b|\bamu\b|\bDa\b|\bDebye\b"
    r"|\bHartree|\bBohr|\bHa\b|\b[kMGT]?Hz\b|\bcm⁻¹|\b1/cm\b|\bcm\^-1|\bk?cal/mol|\bkJ/mol|\bg/cm"
    r"|\bkg/m|\b[JN]/m\b|\bdegrees\b|°|\bradians\b|\bkelvin\b|\bvolts?\b|\bseconds\b|\binch(?:es)?\b"
    r"|\belementary charges?\b|\batomic units\b|\bASE(?:'s)? units|\bunits of\b|\b(?:same|any) unit"
    r"|\bdimensionless\b|\bunitless\b|\bfractional\b|\bper cent\b|%"
    r"|(?:\A|\b(?:[Ii]n|per) |\([^()\n]*\bin )[eVKDsuWJN](?=$|[\s,;:)\]/·²³⁻^*]|\.(?!g\.|\w))"
    r"|\b(?:and|or) [eVK](?=$|[\s,;)/²]|\.(?!g\.|\w))"
    r"|[0-9] [eK](?=[\s,;)/])|[(\[][eVK][)\]/²]|\be[/²]|/e\b",
    re.MULTILINE,
)
#: What follows in a summary is not what comes back: "Energies | at the positions of a minimum".
_AFTER_NOUN = re.compile(r"\b(?:at|by|for|from|in|on|that|to|when|where|which|with)\b|[,;:.(]")
_RAISES = re.compile(r"^\s*(?:Raises\s*\n\s*-{3,}|Raises:|:raises?\b)", re.MULTILINE)


def docstring(definition: Definition) -> str:
    """Return the docstring; that of a class includes those of its initializers."""
    parts = [ast.get_docstring(definition.node) or ""]
    if isinstance(definition.node, ast.ClassDef):
        parts += [ast.get_docstring(node) or "" for node in initializers(definition.node)]
    return "\n".join(parts)


def initializers(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Return what runs when an object is made; the docstring of the class documents it."""
    names = {"__init__", "__post_init__", "__new__"}
    return [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name in names]


def documented(package: Package) -> Share:
    """Return the share of public definitions with a docstring, dunder methods aside."""
    public = [d for d in (*package.functions, *package.classes) if d.public and not d.dunder]
    public = [d for d in public if not d.decorators & {"overload", "override", "setter"}]
    return Share(len(public), [d.where for d in public if not docstring(d).strip()])


def is_number(annotation: ast.AST | None) -> bool:
    """Whether a type can hold a quantity: reals and arrays of reals, or no type at all."""
    if annotation is None:
        return True
    if isinstance(annotation, ast.Subscript) and last_name(annotation) in SHAPED:
        return not last_name(annotation).startswith(("Bool", "Int", "Key", "UInt"))
    if isinstance(annotation, ast.Subscript) and last_name(annotation) in {"Callable", "Literal"}:
        return False
    if isinstance(annotation, ast.Name | ast.Attribute):
        return last_name(annotation) in REALS
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return bool(REALS & set(re.findall(r"\w+", annotation.value)))
    return any(map(is_number, ast.iter_child_nodes(annotation)))


def is_quantity(name: str, annotation: ast.expr | None) -> bool:
    """Whether a name and its type stand for something that has a unit."""
    return bool(QUANTITY.search(name)) and not NO_QUANTITY.search(name) and is_number(annotation)


def quantities(function: Definition) -> list[str]:
    """Return the arguments with a unit, and ``return`` if the result has one."""
    found = [a.arg for a in arguments(function) if is_quantity(a.arg, a.annotation)]
    assert isinstance(function.node, FUNCTIONS)
    returns = function.node.returns
    if function.node.name == "__init__" or returns is None or not is_number(returns):
        return found
    summary = docstring(function).partition("\n")[0].lower()
    noun = _AFTER_NOUN.split(summary)[0]
    named = QUANTITY.search(function.node.name) or IN_PROSE.search(noun)
    counts = NO_QUANTITY.search(function.node.name)
    return [*found, "return"] if named and not counts else found


def units(package: Package) -> Share:
    """Return the share of public functions, classes and fields with quantities that name a unit.

    A function or method counts if an argument or its result is a quantity: a real number or array
    of reals (`is_number`) with such a name (`QUANTITY`); a result also counts if the first line of
    the docstring calls it so. The docstring of a class stands for the one of ``__init__``. Records
    count once for each field that is a quantity, and the unit stands at the field.
    """
    total, offenders = 0, []
    for where, names, text in _with_quantities(package):
        total += 1
        if not UNIT.search(text):
            offenders.append(f"{where}: {', '.join(names)}")
    return Share(total, offenders)


def _with_quantities(package: Package) -> Iterator[tuple[str, list[str], str]]:
    owners = {d.node: d for d in package.classes}
    for function in package.functions:
        initializer = function.node.name in {"__init__", "__new__"}
        if not function.public or "overload" in function.decorators:
            continue
        if names := quantities(function):
            owner = owners[function.owner] if initializer and function.owner else function
            yield function.where, names, docstring(owner)
    for record in package.classes:
        if record.public and is_record(record):
            for name, node in fields(record):
                if not name.startswith("_") and is_quantity(name, node.annotation):
                    where = f"{record.module.path}:{node.lineno} {record.name}.{name}"
                    yield where, [name], field_docstring(record, node)


def field_docstring(record: Definition, node: ast.AnnAssign) -> str:
    """Return the string after a field, or its entry in the docstring of the class."""
    body = record.node.body
    after = body[body.index(node) + 1 :][:1]
    own = text_of(after[0]) if after else None
    if own is not None:
        return own
    name = re.escape(getattr(node.target, "id", ""))
    entry = re.search(rf"^{name}\b[^\n]*(?:\n(?:[ \t]+[^\n]*|))*", docstring(record), re.MULTILINE)
    return entry[0] if entry else ""


def own_raises(node: ast.AST) -> Iterator[ast.Raise]:
    """Yield the errors that a function raises itself, not a function inside it."""
    for child in statements(node):
        if isinstance(child, ast.Raise) and child.exc is not None:
            yield child
        if not isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            yield from own_raises(child)


def says_not_implemented(error: ast.Raise) -> bool:
    """Whether an error marks a method that subclasses implement."""
    called = error.exc.func if isinstance(error.exc, ast.Call) else error.exc
    return called is not None and last_name(called) == "NotImplementedError"


def raises(package: Package) -> Share:
    """Return the share of public functions that raise, and have a Raises section.

    A re-raise without an error does not count, nor do abstract methods and dunder methods other
    than ``__call__``. A class counts if its initializers raise.
    """
    bodies: list[tuple[Definition, list[ast.AST]]] = []
    for function in package.functions:
        is_open = not function.dunder or function.node.name == "__call__"
        if function.public and is_open and "abstractmethod" not in function.decorators:
            bodies.append((function, [function.node]))
    bodies += [
        (d, list(initializers(d.node)))
        for d in package.classes
        if d.public and isinstance(d.node, ast.ClassDef)
    ]
    raising = [d for d, nodes in bodies if any(map(_raises_for_users, nodes))]
    return Share(len(raising), [d.where for d in raising if not _RAISES.search(docstring(d))])


def _raises_for_users(node: ast.AST) -> bool:
    return any(not says_not_implemented(error) for error in own_raises(node))
