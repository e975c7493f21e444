"""Ensembles that settings can name: those of this package, and others by import path."""

import importlib
import inspect
import pkgutil

import phicalc.md.ensembles as package
from phicalc.md.ensembles.kind import Ensemble
from phicalc.plugins import find_class, is_foreign
from phicalc.schema.words import hint


def _ensembles() -> list[Ensemble]:
    """Return one of each class of the modules of this package, the defaults first."""
    found: list[Ensemble] = []
    for info in pkgutil.iter_modules(package.__path__):
        if info.name == "offered":
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, Ensemble) and not inspect.isabstract(value):
                found.append(value())
    return sorted(found, key=lambda kind: not kind.is_default)


_ENSEMBLES = _ensembles()
#: Thermostats offered by each ensemble; the first is the default.
THERMOSTATS: dict[str, tuple[str, ...]] = {
    name: tuple(kind.thermostat for kind in _ENSEMBLES if kind.ensemble == name and kind.thermostat)
    for name in ("nve", "nvt", "npt")
}


def find_ensemble(ensemble: str, thermostat: str | None) -> Ensemble:
    """Return the ensemble that the settings name.

    Parameters
    ----------
    ensemble
        ``"nve"``, ``"nvt"`` or ``"npt"``.
    thermostat
        One of `THERMOSTATS`, None for the first of them, or the import path
        ``package.module:Class`` of a subclass of `Ensemble`, whose module is imported.

    Raises
    ------
    ValueError
        If there is no such ensemble.
    """
    if thermostat is not None and is_foreign(thermostat):
        return _foreign(ensemble, thermostat)
    for kind in _ENSEMBLES:
        if kind.ensemble == ensemble and thermostat in (None, kind.thermostat):
            return kind
    if ensemble not in THERMOSTATS:
        raise ValueError(f"ensemble must be one of {tuple(THERMOSTATS)}, got {ensemble!r}")
    names = THERMOSTATS[ensemble]
    listed = ", ".join(map(repr, names))
    choice = f"one of {listed}, or package.module:Class" if names else "left out"
    raise ValueError(
        f"with ensemble {ensemble!r}, 'thermostat' must be {choice}; got {thermostat!r}."
        f"{hint(thermostat, names)}"
    )


def _foreign(ensemble: str, path: str) -> Ensemble:
    """Return an ensemble of somebody else's module."""
    found = find_class(path, {}, allow_import=True, kind="thermostat")
    if not issubclass(found, Ensemble) or inspect.isabstract(found):
        raise ValueError(f"thermostat {path!r} must be a subclass of Ensemble with a build method")
    if found.ensemble != ensemble:
        raise ValueError(
            f"thermostat {path!r} is for ensemble {found.ensemble!r}, got ensemble {ensemble!r}"
        )
    kind: Ensemble = found()
    return kind
