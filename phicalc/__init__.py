"""Electrostatics-aware equivariant neural network potentials for atomistic simulation.

>>> import phicalc
>>> phicalc.__version__
'0.1.0'

The names below are imported when they are first used, so that ``import phicalc`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from phicalc._version import __version__

if TYPE_CHECKING:
    from phicalc.calculators.committee import CommitteeCalculator as CommitteeCalculator
    from phicalc.calculators.phicalculator import PhiCalculator as PhiCalculator
    from phicalc.checkpoint import available_models as available_models
    from phicalc.checkpoint import load_model as load_model
    from phicalc.graph import AtomicGraph as AtomicGraph
    from phicalc.graph import from_ase as from_ase

_HOME_OF = {
    "AtomicGraph": "phicalc.graph",
    "CommitteeCalculator": "phicalc.calculators.committee",
    "PhiCalculator": "phicalc.calculators.phicalculator",
    "available_models": "phicalc.checkpoint",
    "from_ase": "phicalc.graph",
    "load_model": "phicalc.checkpoint",
}

__all__ = [
    "AtomicGraph",
    "CommitteeCalculator",
    "PhiCalculator",
    "__version__",
    "available_models",
    "from_ase",
    "load_model",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'phicalc' has no attribute {name!r}; it offers {__all__}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names for completion, those not yet imported included."""
    return sorted({*globals(), *__all__})
