"""``pytest --ase-calculator=…`` as users run it, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from phicalc.structures import water_box, write_structures

BROKEN = """
from ase.calculators.lj import LennardJones

class WrongSign(LennardJones):
    def calculate(self, *arguments, **settings):
        super().calculate(*arguments, **settings)
        self.results["forces"] = -self.results["forces"]
        self.results["stress_in_GPa"] = 1.0

def test_of_its_own():
    pass
"""


def pytest_in(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of pytest in a folder of somebody else."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    return done.returncode, done.stdout + done.stderr


def test_emt_complies(tmp_path):
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    assert False\n")
    code, output = pytest_in(
        tmp_path, "--ase-calculator=ase.calculators.emt:EMT", "--ase-elements=Cu,Al", "-n", "1"
    )
    assert code == 0, output  # and test_mine was not asked for
    assert re.search(r"\b91 passed", output), output


def test_a_broken_calculator_fails_where_it_is_broken(tmp_path):
    (tmp_path / "test_broken.py").write_text(BROKEN)
    code, output = pytest_in(
        tmp_path, "test_broken.py", "--ase-calculator=test_broken:WrongSign", "--ase-elements=Ar",
        '--ase-calculator-args={"sigma": 2.3, "rc": 7.0, "smooth": true}', "-v", "--tb=no",
    )  # fmt: skip
    assert code == 1, output
    failed = set(re.findall(r"FAILED \S*::(test_\w+)\[\w+-(\w+)\]", output))
    assert failed == {("test_physics", "forces"), ("test_contract", "names")}, output
    assert "6 failed, 86 passed" in output  # 91 checks, and the test of that file


def test_ours_complies_with_structures_of_a_file(tmp_path):
    write_structures(tmp_path / "water.extxyz", [water_box(2, density=0.5, seed=3)])
    code, output = pytest_in(
        tmp_path, "--ase-calculator=phicalc:PhiCalculator", "--ase-structures=water.extxyz",
        '--ase-calculator-args={"model": "water-small", "compile": false}',
        "--ase-precision=single", "-k", "physics",
    )  # fmt: skip
    assert code == 0, output
    assert re.search(r"\b9 passed", output), output


MISTAKES = [
    (("nothing:At.all", "--ase-elements=H"), "must be package.module:Class, got 'nothing:At"),
    (("ase.calculators.emt:EMT",), "give --ase-structures=FILE or --ase-elements"),
    (
        ("ase.calculators.emt:EMT", "--ase-elements=Cu", "--ase-calculator-args=[]"),
        "must be a JSON object",
    ),
    (("ase.calculators.emt:EMT", "--ase-elements=U"), "refuses all structures"),
]


def test_mistakes_are_explained(tmp_path):
    # All in one process, whose start takes longer than they do.
    runs = [[f"--ase-calculator={name}", *others] for (name, *others), _ in MISTAKES]
    script = (
        "import pytest\n"
        f"for arguments in {runs}:\n"
        "    code = pytest.main(['-q', '-x', '-p', 'no:cacheprovider', *arguments])\n"
        "    print('END OF RUN', int(code))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, text=True, timeout=280,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    outputs = re.split(r"END OF RUN (\d+)\n", done.stdout)
    assert len(outputs) == 2 * len(MISTAKES) + 1, done.stdout
    for (_, message), output, code in zip(MISTAKES, outputs[::2], outputs[1::2], strict=False):
        assert int(code) != 0
        assert message in output


def test_the_plugin_costs_nothing_without_its_option(tmp_path):
    code = (
        "import sys, pytest_phicalc; heavy = {'numpy', 'ase', 'torch', 'phicalc'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
