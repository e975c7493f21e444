"""Molecular dynamics: ensembles on ASE's integrators, guard rails, logs and pictures."""

from phicalc.md.config import MDConfig
from phicalc.md.driver import MDResult, run_md
from phicalc.md.ensembles import initialise_velocities
from phicalc.md.guard import MDError
from phicalc.md.log import read_log
from phicalc.md.report import Analysis, analyse_run, make_report

__all__ = [
    "Analysis",
    "MDConfig",
    "MDError",
    "MDResult",
    "analyse_run",
    "initialise_velocities",
    "make_report",
    "read_log",
    "run_md",
]
