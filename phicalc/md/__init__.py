"""Molecular dynamics: ensembles on ASE's integrators, exact restarts, guard rails, pictures."""

from typing import TYPE_CHECKING

from phicalc._exports import lazy_exports
from phicalc.md.config import MDConfig
from phicalc.md.driver import MDResult, run_md
from phicalc.md.guard import MDError
from phicalc.md.log import read_log
from phicalc.md.signals import MDInterrupted
from phicalc.md.velocities import initialise_velocities

if TYPE_CHECKING:
    from phicalc.md.report.page import Analysis, analyse_run, make_report

__all__ = [
    "Analysis",
    "MDConfig",
    "MDError",
    "MDInterrupted",
    "MDResult",
    "analyse_run",
    "initialise_velocities",
    "make_report",
    "read_log",
    "run_md",
]

# Pictures and spectra take a second to import, which a run without them need not wait for.
__getattr__, __dir__ = lazy_exports(
    __name__,
    globals(),
    dict.fromkeys(("Analysis", "analyse_run", "make_report"), "phicalc.md.report.page"),
)
