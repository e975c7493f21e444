"""Electrostatics-aware equivariant neural network potentials for atomistic simulation.

>>> import phicalc
>>> phicalc.__version__
'0.1.0'

The names below are imported when they are first used, so that ``import phicalc`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicalc._exports import lazy_exports
from phicalc._version import __version__

if TYPE_CHECKING:
    from phicalc.calculators.committee import CommitteeCalculator as CommitteeCalculator
    from phicalc.calculators.phicalculator import PhiCalculator as PhiCalculator
    from phicalc.checkpoint import available_models as available_models
    from phicalc.checkpoint import load_model as load_model
    from phicalc.graph import AtomicGraph as AtomicGraph
    from phicalc.graph import from_ase as from_ase

__all__ = [
    "AtomicGraph",
    "CommitteeCalculator",
    "PhiCalculator",
    "__version__",
    "available_models",
    "from_ase",
    "load_model",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    globals(),
    {
        "AtomicGraph": "phicalc.graph",
        "CommitteeCalculator": "phicalc.calculators.committee",
        "PhiCalculator": "phicalc.calculators.phicalculator",
        "available_models": "phicalc.checkpoint",
        "from_ase": "phicalc.graph",
        "load_model": "phicalc.checkpoint",
    },
)
