"""Names that a package offers and imports only when they are used (PEP 562)."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_exports(
    package: str, names: dict[str, object], homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package.

    Parameters
    ----------
    package
        Its name.
    names
        Its ``globals()``; names that have been imported stay there.
    homes
        Module of each name.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; it offers {sorted(homes)}"
            )
        names[name] = getattr(import_module(homes[name]), name)
        return names[name]

    def list_names() -> list[str]:
        return sorted({*names, *homes})

    return get, list_names
