"""Engines of neighbor lists: every file here is one, named after the library that it uses.

It has a function ``search(positions, box, cutoff)``, which returns the pairs within the cutoff and
perhaps some that are slightly longer, in any order. It imports its library when it is called, and
raises the error of `phicalc.neighbors.missing.missing` without it.
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from jaxtyping import Float64
from numpy import ndarray

from phicalc.neighbors.record import Box, Pairs

Search = Callable[[Float64[ndarray, "n_atoms 3"], Box, float], Pairs]

#: The engine that ``"auto"`` means.
DEFAULT = "vesin"

#: Names of the engines; each is also the name of the library it uses.
ENGINES: tuple[str, ...] = (
    DEFAULT,
    *sorted(module.name for module in iter_modules(__path__) if module.name != DEFAULT),
)


def search_of(engine: str) -> Search:
    """Return the search function of an engine."""
    search: Search = import_module(f"{__name__}.{engine}").search
    return search
