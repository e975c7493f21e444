"""The shape of the source: imports go one way and are free, modules stay small."""

from __future__ import annotations

import ast
import configparser
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "phicalc"

# A part may import those before it, and no other.
LINE = (
    "_version",
    "_exports",
    "units",
    "elements",
    "hints",
    "progress",
    "system",
    "workers",
    "many",
    "schema",
    "plugins",
    "kinds",
    "state",
    "locks",
    "pages",
    "pictures",
    "structures",
    "view",
    "neighbors",
    "skin",
    "graph",
    "data",
    "domain",
    "nn",
    "backbone",
    "linear",
    "electrostatics",
    "terms",
    "feedback",
    "uncertainty",
    "architecture",
    "potential",
    "derivatives",
    "response",
    "placement",
    "card",
    "certificate",
    "registry",
    "upgrades",
    "checkpoint",
    "suggest",
    "compiled",
    "captured",
    "inference",
    "calculators",
    "analysis",
    "md",
    "cli",
)
# These leave the line after the part named here, and nobody but the command line imports them.
BRANCHES = {
    "labelling": "structures",
    "info": "checkpoint",
    "training": "compiled",
    "relax": "calculators",
    "properties": "calculators",
    "doctor": "calculators",
    "testing": "md",
    "integrations": "md",
    "validation": "md",
    "improvement": "md",
}
# Validation measures with what users have, and there is one way to measure each property.
FOR_VALIDATION = {"doctor", "labelling", "properties", "relax", "testing"}
# Improvement has no way of its own to do anything that these do.
FOR_IMPROVEMENT = {"labelling", "training", "validation"}
FOR_THE_COMMAND_LINE = {
    "doctor", "improvement", "info", "integrations", "labelling", "properties", "relax", "training",
    "validation",
}  # fmt: skip
MAX_LINES = 350
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def sources() -> dict[str, Path]:
    """Dotted name of every module of the package and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = sources()


def part_of(module: str) -> str:
    """Part of the line to which a module belongs: ``phicalc.md.report.page`` → ``md``."""
    return module.split(".")[1] if "." in module else ""


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imported_names(module: str, node: ast.AST) -> list[str]:
    """Absolute names that an import statement asks for; ``from a import b`` may mean ``a.b``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, base] if base else above)
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imports(module: str) -> list[tuple[str, int, bool]]:
    """(name, line, inside a function) for each name imported at run time by a module."""
    found: list[tuple[str, int, bool]] = []

    def walk(node: ast.AST, in_function: bool) -> None:
        if is_type_checking(node):
            return
        found.extend((name, node.lineno, in_function) for name in imported_names(module, node))
        inside = in_function or isinstance(node, FUNCTIONS)
        for child in ast.iter_child_nodes(node):
            walk(child, inside)

    walk(ast.parse(MODULES[module].read_text(encoding="utf-8")), False)
    return found


def own_imports(module: str) -> list[tuple[str, int, bool]]:
    """Keep of those only the modules of the package itself."""
    return [row for row in imports(module) if row[0] in MODULES and row[0] != module]


def allowed(part: str) -> set[str]:
    """Parts that a part may import, itself included."""
    if part in BRANCHES:
        before = {part, *LINE[: LINE.index(BRANCHES[part]) + 1]}
        return before | {"validation": FOR_VALIDATION, "improvement": FOR_IMPROVEMENT}.get(
            part, set()
        )
    before = set(LINE[: LINE.index(part) + 1])
    return before | (FOR_THE_COMMAND_LINE if part == "cli" else set())


def test_every_module_has_a_place():
    strangers = {part_of(module) for module in MODULES} - {"", *LINE, *BRANCHES}
    assert not strangers, f"give these a place in LINE or BRANCHES: {sorted(strangers)}"


# Imported inside functions: libraries that are optional, or too slow to import for every start.
OPTIONAL = {
    "distributed",
    "matscipy",
    "mpi4py",
    "phonopy",
    "pymatgen",
    "spglib",
    "tblite",
    "torch_cluster",
}
SLOW = {
    "ase.io", "functorch.compile", "matplotlib", "scipy", "torch._inductor",
    "torch.utils.cpp_extension",
}  # fmt: skip
IN_FUNCTIONS = OPTIONAL | SLOW


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_inside_functions_are_optional_or_slow(module):
    for name, line, in_function in imports(module):
        listed = any(f"{name}.".startswith(f"{known}.") for known in IN_FUNCTIONS)
        assert not in_function or listed, f"{module}:{line} imports {name} inside a function"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module):
    found = own_imports(module)
    of_modules = {line for name, line, _ in found if "." in name}
    for name, line, in_function in found:
        where = f"{module}:{line} imports {name}"
        assert not in_function, f"{where} inside a function"
        if part_of(module) == "":
            light = ("phicalc._version", "phicalc._exports")
            assert name in light, f"{where}: the package itself must import nothing"
        elif name == "phicalc":
            assert line in of_modules, f"{where}, which itself imports names of its modules"
        else:
            assert part_of(name) in allowed(part_of(module)), where


def test_no_import_cycles():
    inside = {m: {name for name, *_ in own_imports(m) if name != "phicalc"} for m in MODULES}
    # A package is imported before its modules and may re-export them: follow modules, not packages.
    packages = {m for m, path in MODULES.items() if path.name == "__init__.py"}
    list(TopologicalSorter({m: names - packages for m, names in inside.items()}).static_order())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_stay_small(module):
    lines = MODULES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{module} has {lines} lines: split it by noun"


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    folders = {m for m, path in MODULES.items() if path.name == "__init__.py"}
    assert listed == folders | {"phicalc.models"}


# Imports the third-party modules first: what they do to the process is not ours to answer for.
PROBE = """
import importlib, json, logging, os, pathlib, random, sys, warnings

def state():
    import numpy, torch
    return {
        "environment": dict(os.environ),
        "warnings filters": [str(f) for f in warnings.filters],
        "default dtype": str(torch.get_default_dtype()),
        "torch threads": torch.get_num_threads(),
        "torch random state": torch.initial_seed(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "numpy errors": numpy.geterr(),
        "numpy random state": str(numpy.random.get_state()),
        "random state": str(random.getstate()),
        "log handlers": [str(h) for h in logging.getLogger().handlers],
        "log level": logging.getLogger().level,
        "search path": list(sys.path),
        "working directory": os.getcwd(),
        "files": sorted(str(p) for p in pathlib.Path.cwd().rglob("*")),
    }

foreign, own = json.loads(sys.argv[1])
for name in foreign:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # a function or class, or an optional library
before = state()
for name in own:
    importlib.import_module(name)
after = state()
print(json.dumps([key for key in before if before[key] != after[key]]))
"""


def run_python(code: str, *arguments: str, home: Path) -> str:
    """Output of a fresh interpreter that has a home folder and works in it."""
    environment = {**os.environ, "HOME": str(home), "MPLCONFIGDIR": str(home)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_is_free(tmp_path):
    asked = {name for module in MODULES for name, _, inside in imports(module) if not inside}
    foreign = sorted({"numpy", "torch"} | {n for n in asked if n.split(".")[0] != "phicalc"})
    output = run_python(PROBE, json.dumps([foreign, sorted(MODULES)]), home=tmp_path)
    assert json.loads(output) == [], "importing phicalc changed these"


#: What must not be loaded before it is needed, by what is run.
HEAVY = (
    "ase.io",
    "functorch.compile",
    "matplotlib",
    "pymatgen",
    "scipy",
    "sympy",
    "torch._dynamo",
)
LIGHT = {
    "from phicalc import PhiCalculator": HEAVY,
    "from phicalc import CommitteeCalculator, available_models, from_ase, load_model": HEAVY,
    "import phicalc": ("ase", "numpy", "scipy", "torch"),
    "import phicalc.cli": ("ase", "numpy", "scipy", "torch"),
    "from phicalc.cli import main; main(['--version'])": ("ase", "numpy", "scipy", "torch"),
    "from phicalc.cli import main; main(['--help'])": ("ase", "numpy", "scipy", "torch"),
}
LOADED = """
import json, sys
try:
    exec(sys.argv[1])
except SystemExit:
    pass
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""


@pytest.mark.parametrize("code", LIGHT)
def test_starting_loads_nothing_heavy(code, tmp_path):
    assert run_python(LOADED, code, *LIGHT[code], home=tmp_path).splitlines()[-1] == "[]"
