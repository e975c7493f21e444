"""The checks, one a file: every module here with a ``CHECK`` is found."""

from importlib import import_module
from pkgutil import iter_modules

from phicalc.validation.check import Check


def all_checks() -> dict[str, Check]:
    """Return all checks by name, the cheapest first."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    checks = sorted((module.CHECK for module in modules), key=lambda check: check.cost)
    return {check.name: check for check in checks}
