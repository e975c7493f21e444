"""Plugin of pytest: ``pytest --ase-calculator=package.module:Class`` checks any ASE calculator.

Without that option nothing is imported. The tests are in `phicalc.testing.compliance`.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ase-calculator", "compliance of ASE calculators")
    group.addoption(
        "--ase-calculator",
        metavar="MODULE:CLASS",
        help="check this ASE calculator (or a function that makes one); without files or folders, "
        "run nothing else",
    )
    group.addoption(
        "--ase-calculator-args", metavar="JSON", default="{}", help="arguments of its constructor"
    )
    group.addoption("--ase-elements", help="make structures of these, such as H,O")
    group.addoption("--ase-structures", metavar="FILE", help="take the structures of a file")
    group.addoption(
        "--ase-info", metavar="JSON", default="{}", help='atoms.info of all, such as {"charge": 1}'
    )
    group.addoption(
        "--ase-precision",
        default="double",
        choices=("double", "single"),
        help="how exact the calculator is: single allows for rounding in float32",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the tests to those that run, or run them alone if no others were asked for."""
    if config.getoption("ase_calculator") is None:
        return
    spec = find_spec("phicalc")
    assert spec is not None  # it is installed together with this module
    assert spec.origin is not None
    tests = str(Path(spec.origin).parent / "testing" / "compliance.py")
    if tests in config.args:  # in a worker of pytest-xdist
        return
    others = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    config.args = [*others, tests]
