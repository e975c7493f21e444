"""Classes by name: those that phicalc brings, and those of other people's modules."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from phicalc.schema.words import hint

#: How names of classes outside phicalc are written.
IMPORT_PATH = "package.module:Class"


def is_foreign(name: str) -> bool:
    """Whether a name is an import path, so that finding its class may run code from outside."""
    return ":" in name


def find_class(
    name: object, known: Mapping[str, str], *, allow_import: bool, kind: str = "class"
) -> type[Any]:
    """Return the class that a name in a configuration or a model's card stands for.

    Parameters
    ----------
    name
        A key of `known`, or the import path ``package.module:Class`` of any other class.
    known
        Import paths of the classes that phicalc brings, by name.
    allow_import
        Whether import paths are allowed. Importing a module runs its code, so allow it for files
        that you trust only.
    kind
        What the class is, for messages: "backbone", "head".

    Raises
    ------
    ValueError
        For a name that is neither known nor an import path, an import path that is not allowed,
        a module that cannot be imported, or a module without such a class.
    """
    if not isinstance(name, str):
        raise ValueError(f"the name of a {kind} must be a text, got {name!r}")
    if name in known:
        return _class_in(*_parts(known[name], kind), kind)
    if not is_foreign(name):
        raise ValueError(
            f"unknown {kind} {name!r}{hint(name, known) or '.'} Known: {', '.join(sorted(known))}; "
            f"write the import path {IMPORT_PATH!r} for any other"
        )
    module, attribute = _parts(name, kind)
    if not allow_import:
        raise ValueError(
            f"the {kind} {name!r} is code outside phicalc, and importing it runs that code. If you "
            f"trust the module {module!r}, allow it: load_model(…, allow_import=True) returns the "
            "potential, which PhiCalculator takes in place of a model's name"
        )
    return _class_in(module, attribute, kind)


def _parts(path: str, kind: str) -> tuple[str, str]:
    """Split ``package.module:Class`` into the module and the class."""
    module, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise ValueError(f"the import path of a {kind} must be {IMPORT_PATH!r}, got {path!r}")
    return module, attribute


def _class_in(module: str, attribute: str, kind: str) -> type[Any]:
    """Import a module and take a class out of it."""
    loaded = _import(module, kind)
    found = getattr(loaded, attribute, None)
    if isinstance(found, type):
        return found
    classes = [name for name, value in vars(loaded).items() if isinstance(value, type)]
    problem = "has no class" if found is None else f"has a {type(found).__name__}, not a class,"
    raise ValueError(
        f"{kind} '{module}:{attribute}': module {module!r} {problem} {attribute!r}"
        f"{hint(attribute, classes)}"
    )


def _import(module: str, kind: str) -> ModuleType:
    """Import a module, with one kind of error for all that can go wrong."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # the module may raise anything
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and (module == absent or module.startswith(f"{absent}.")):
            raise ValueError(
                f"{kind}: no module named {absent!r}, which {module!r} needs. Install it, or "
                "add the folder that holds it to PYTHONPATH"
            ) from error
        raise ValueError(
            f"{kind}: importing {module!r} failed: {type(error).__name__}: {error}"
        ) from error
