"""What goes into wheel and source distribution, and the versions that are tried."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRACKED = [
    ".gitignore",
    "phicalc/__init__.py",
    "phicalc/py.typed",
    "models/water/card.json",
    "models/water/weights.safetensors",
    "models/water/data.xyz.gz",
    "tests/test_x.py",
]
IN_WHEEL = {
    "phicalc/__init__.py": 10,
    "phicalc/py.typed": 0,
    "phicalc/models/water/card.json": 10,
    "phicalc/models/water/weights.safetensors": 10,
    "pytest_phicalc.py": 10,
    "phicalc-0.1.0.dist-info/METADATA": 10,
}


@pytest.fixture(scope="module", autouse=True)
def tools() -> Iterator[None]:
    """Make `tools` importable."""
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def test_a_good_wheel_has_no_faults():
    from tools.contents import faults_of_wheel

    assert faults_of_wheel(IN_WHEEL, 1000, TRACKED) == []


@pytest.mark.parametrize(
    ("more", "total", "fault"),
    [
        ({"phicalc/models/water/data.xyz.gz": 10}, 1000, "data.xyz.gz: data have no place"),
        ({}, 6_000_001, "6.00 MB are more than 6"),
        ({"tests/test_x.py": 10}, 1000, "tests/test_x.py would be installed beside"),
    ],
)
def test_a_wheel_with_too_much_in_it(more, total, fault):
    from tools.contents import faults_of_wheel

    [found] = faults_of_wheel(IN_WHEEL | more, total, TRACKED)
    assert fault in found


@pytest.mark.parametrize("name", list(IN_WHEEL)[:4])
def test_a_wheel_that_lacks_something(name):
    from tools.contents import faults_of_wheel

    sizes = {each: size for each, size in IN_WHEEL.items() if each != name}
    assert faults_of_wheel(sizes, 1000, TRACKED) == [f"{name} is missing"]


def test_files_are_read_and_faults_end_it(tmp_path, capsys):
    from tools.contents import main

    wheel, sdist = tmp_path / "x.whl", tmp_path / "x.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in IN_WHEEL:
            archive.writestr(name, "text")
    for missing, status in ((None, 0), ("tests/test_x.py", 1)):
        with tarfile.open(sdist, "w:gz") as archive:
            for name in TRACKED[1:]:
                if name != missing:
                    archive.addfile(tarfile.TarInfo(f"phicalc-0.1.0/{name}"), io.BytesIO())
        assert main(wheel, sdist, TRACKED) == status
        assert (f"sdist: {missing} is missing" in capsys.readouterr().out) == bool(status)


def test_lowest_versions_are_the_bounds_of_setup_cfg():
    from tools.bounds import lowest, pins, rest

    assert lowest()["torch"] == "torch==2.6"
    assert lowest()["pytest"] == "pytest==8.4"  # a pin of today may want newer packages than these
    assert set(lowest()) <= set(pins())
    needed = rest()
    assert not any(line.startswith("torch") for line in needed)
    assert any(line.startswith("numpy>=") for line in needed)
    assert any(line.startswith("pytest>=") for line in needed)


def test_a_requirement_without_a_bound_is_refused(tmp_path):
    from tools.bounds import lowest

    extras = "[options.extras_require]\ntest =\n    pytest>=8\n"
    (tmp_path / "setup.cfg").write_text(f"[options]\ninstall_requires =\n    numpy\n{extras}")
    with pytest.raises(ValueError, match="numpy has no lower bound"):
        lowest(tmp_path)


@pytest.mark.parametrize("script", ["package.sh", "matrix.sh", "environments.sh"])
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", ROOT / "tools" / script], check=True)


def test_quick_part_of_the_tests_exists():
    text = (ROOT / "tools" / "environments.sh").read_text(encoding="utf-8")
    named = [word.strip("()") for word in text.split() if word.strip("()").endswith(".py")]
    named = [word.removeprefix("quick_tests=(") for word in named]
    assert len(named) > 5
    assert all((ROOT / name).is_file() for name in named)
