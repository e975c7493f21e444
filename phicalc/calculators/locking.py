"""Calculators that several threads may share, and that write no restart files."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from ase import Atoms
from ase.calculators.calculator import Calculator, ReadError

Method = TypeVar("Method", bound=Callable[..., Any])


def locked(method: Method) -> Method:
    """Let a method wait until no other thread is inside one of the same calculator."""

    @wraps(method)
    def waiting(self: "LockedCalculator", *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast(Method, waiting)


class LockedCalculator(Calculator):
    """Calculator whose properties are computed by one thread at a time.

    A thread that asks for a property of its own ``Atoms`` gets that of these atoms, whatever other
    threads ask for meanwhile. Threads gain nothing from sharing a calculator; what they read from
    ``results`` without asking may belong to another structure.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.lock = threading.RLock()
        super().__init__(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock: copies have their own."""
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state up with a new lock."""
        self.__dict__.update(state)
        self.lock = threading.RLock()

    def read(self, label: str) -> None:
        """Refuse ``restart=``: there is nothing to restart from.

        Raises
        ------
        ase.calculators.calculator.ReadError
            Always.
        """
        name = type(self).__name__
        raise ReadError(f"{name} writes no restart files: leave out restart={label!r}")

    @locked
    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """Return a property of a structure; computed if it changed since the last one."""
        return super().get_property(name, atoms, allow_calculation)
