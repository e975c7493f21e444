"""Pages made from the code: the command line from its parser, the API from public names."""

from __future__ import annotations

import argparse
import inspect
from importlib import import_module
from types import ModuleType

from phicalc.cli.parser import VERBS, Verb, make_parser

from .docstrings import readable
from .markdown import table

#: Public modules, in the order of the reference, with what they are about.
MODULES = {
    "phicalc": "Calculator, models, graphs",
    "phicalc.structures": "Structures",
    "phicalc.relax": "Relaxation",
    "phicalc.properties": "Properties",
    "phicalc.md": "Molecular dynamics",
    "phicalc.analysis": "Analysis of trajectories",
    "phicalc.view": "Views in 3D",
    "phicalc.many": "Many structures",
    "phicalc.labelling": "Labelling",
    "phicalc.training": "Training",
    "phicalc.validation": "Validation",
    "phicalc.improvement": "Active learning",
    "phicalc.info": "Information",
    "phicalc.doctor": "Doctor",
    "phicalc.card": "Cards of models",
    "phicalc.graph": "Graphs",
    "phicalc.neighbors": "Neighbor lists",
    "phicalc.electrostatics": "Electrostatics",
    "phicalc.integrations.ipi": "i-PI",
    "phicalc.integrations.lammps": "LAMMPS",
    "phicalc.integrations.openmm": "OpenMM",
    "phicalc.integrations.torch_sim": "torch-sim",
    "phicalc.testing": "Tests of calculators",
}


def command_pages() -> dict[str, str]:
    """Return the reference of the command line, one page."""
    parts = [
        "# Command line\n\nMade from the parser; `phicalc VERB --help` prints the same. Every "
        "verb takes `--debug` (show the traceback of an error) and `--threads`.\n"
    ]
    parts += [_verb(name) for name in VERBS]
    return {"cli.md": "\n".join(parts)}


def api_pages() -> dict[str, str]:
    """Return one page for each public module, and the list of them."""
    homes: dict[object, str] = {}
    for name in MODULES:  # of what two modules offer, the later and more special one is the home
        module = import_module(name)
        homes |= {getattr(module, each): name for each in public_names(module)}
    pages = {f"api/{name}.md": _module(name, title, homes) for name, title in MODULES.items()}
    rows = [(f"[`{name}`]({name}.md)", title) for name, title in MODULES.items()]
    pages["api/index.md"] = (
        "# Python API\n\nThe public names of phicalc, from their docstrings. Positions in Å, "
        "energies in eV, forces in eV/Å, stress in eV/Å³ (tension positive), charges in e.\n\n"
        + table(("module", ""), rows)
    )
    return pages


def public_names(module: ModuleType) -> list[str]:
    """Return the public functions and classes of a module.

    That is ``__all__``, or else what a module defines itself.
    """
    listed = getattr(module, "__all__", None)
    names = [name for name in listed or vars(module) if not name.startswith("_")]
    found = {name: getattr(module, name) for name in names}
    return sorted(
        name
        for name, value in found.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and (listed is not None or value.__module__ == module.__name__)
        and value.__module__.startswith("phicalc")
    )


def _module(name: str, title: str, homes: dict[object, str]) -> str:
    """Return the page of a module; what has its home elsewhere is a link."""
    module = import_module(name)
    lines = [f"# {title}: `{name}`\n", readable(inspect.getdoc(module) or ""), ""]
    for public in public_names(module):
        value = getattr(module, public)
        where = f"{value.__module__}.{value.__qualname__}"
        if homes[value] != name:
            lines += [f"## {name}.{public}\n", f"See [{homes[value]}.{public}][{where}].\n"]
            continue
        lines += [
            f"::: {where}",
            "    options:",
            f"      heading: {name}.{public}",
            f"      toc_label: {public}",
            "",
        ]
    return "\n".join(lines)


def _verb(name: str) -> str:
    """Return the section of a verb."""
    [verbs] = [each for each in make_parser()._actions if each.dest == "verb"]
    assert isinstance(verbs.choices, dict)
    verb = verbs.choices[name]
    assert isinstance(verb, Verb)
    verb.complete()
    lines = [f"## phicalc {name}\n", verb.description or "", ""]
    for group in verb._action_groups:
        actions = [each for each in group._group_actions if _is_shown(each)]
        if actions:
            lines += [f"**{group.title}**\n", _options(actions)]
    return "\n".join(lines)


def _is_shown(action: argparse.Action) -> bool:
    """Whether an argument belongs into the table of a verb."""
    return action.help != argparse.SUPPRESS and action.dest not in ("help", "debug", "threads")


def _options(actions: list[argparse.Action]) -> str:
    """Return a table of arguments."""
    return table(
        ("argument", "", "default"), [(_spelled(a), _text(a), _default(a)) for a in actions]
    )


def _spelled(action: argparse.Action) -> str:
    """Return how an argument is written."""
    value = action.metavar or (None if action.nargs == 0 else action.dest.upper())
    if isinstance(value, tuple):
        value = " ".join(value)
    if action.choices:
        value = " / ".join(map(str, action.choices))
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{flag}`" for flag in action.option_strings) + (
        f" `{value}`" if value else ""
    )


def _text(action: argparse.Action) -> str:
    """Return the help of an argument."""
    return (action.help or "").replace("%%", "%").replace("<", "&lt;")


def _default(action: argparse.Action) -> str:
    """Return the default of an argument, where there is one to speak of."""
    if action.default in (None, False, argparse.SUPPRESS) or action.nargs == 0:
        return ""
    value = action.default
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"`{text}`" if text else ""
