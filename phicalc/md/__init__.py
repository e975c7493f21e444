"""Molecular dynamics: ensembles on ASE's integrators, exact restarts, guard rails, pictures."""

from phicalc.md.config import MDConfig
from phicalc.md.driver import MDResult, run_md
from phicalc.md.guard import MDError
from phicalc.md.log import read_log
from phicalc.md.report.page import Analysis, analyse_run, make_report
from phicalc.md.signals import MDInterrupted
from phicalc.md.velocities import initialise_velocities

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
