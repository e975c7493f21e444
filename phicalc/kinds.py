"""Tagged sections of settings: a class chosen by name or import path, and its options.

``head: qeq`` and ``head: {name: qeq, hardness: environment}`` are sections of this kind. Options
are those of the class chosen (its frozen dataclass ``Settings``); others do not exist for it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from phicalc.plugins import find_class
from phicalc.schema import build, settings, to_plain

K = TypeVar("K", bound="Kind")

_imports_allowed: ContextVar[bool] = ContextVar("imports_allowed", default=True)


@contextmanager
def imports(*, allowed: bool) -> Iterator[None]:
    """Allow or refuse, inside the context, settings that name classes by import path."""
    token = _imports_allowed.set(allowed)
    try:
        yield
    finally:
        _imports_allowed.reset(token)


@settings
@dataclass(frozen=True)
class NoSettings:
    """Settings of a class that has none."""


@dataclass(frozen=True)
class Kind:
    """A class chosen by name, with its options. Subclasses say what it can be."""

    name: str
    """Short name, or import path ``package.module:Class``."""
    settings: Any
    """Instance of the class's ``Settings``."""

    what: ClassVar[str]
    """Name of the section in messages."""
    known: ClassVar[Mapping[str, str]]
    """Import paths by short name."""
    base: ClassVar[type] = object
    """Class that all of them derive from."""
    members: ClassVar[tuple[str, ...]] = ("Settings", "from_settings")
    """Members that all of them have."""

    @classmethod
    def from_settings(cls: type[K], value: Any, where: str = "") -> K:
        """Return the section from a name, a mapping with ``name`` and options, or a section.

        Raises
        ------
        ValueError
            For unknown names or options, and import paths where they are not allowed.
        """
        where = where or cls.what
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ValueError(
                f"{where!r} must be a name, or a section with a name and options such as "
                f"{{name: {next(iter(cls.known))}, …}}; got {value!r}"
            )
        name = value["name"]
        given = {key: item for key, item in value.items() if key != "name"}
        return cls(name, build(cls._find(name, where).Settings, given, where))

    def to_settings(self) -> dict[str, Any]:
        """Return name and options as plain values; inverse of `from_settings`."""
        return {"name": self.name, **to_plain(self.settings)}

    @property
    def implementation(self) -> Any:
        """The class."""
        return self._find(self.name, self.what)

    @classmethod
    def _find(cls, name: str, where: str) -> Any:
        """Class of this name."""
        found = find_class(name, cls.known, allow_import=_imports_allowed.get(), kind=cls.what)
        missing = [member for member in cls.members if not hasattr(found, member)]
        if missing or not issubclass(found, cls.base):
            problem = (
                f"it has no {', '.join(missing)}"
                if missing
                else (f"it does not derive from {cls.base.__name__}")
            )
            raise ValueError(f"{where}: {name!r} is no {cls.what}: {problem}")
        return found
