"""House rules that no linter knows: one version, whole metadata, tidy files, checks that bite."""

from __future__ import annotations

import configparser
import re
import subprocess
import tomllib
import warnings
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from ase import Atoms
from jaxtyping import TypeCheckError

import phicalc
from phicalc.graph import AtomicGraph, from_ase, sum_per_structure

ROOT = Path(__file__).resolve().parents[1]
BINARY = {".npz", ".safetensors", ".gz", ".png", ".traj"}
MAX_MEGABYTES = 8
# Files of others, as they were published.
FOREIGN = {"phicalc/view/bundle/3Dmol-min.js"}
# Unfinished work and private folders; the brackets keep this line out of its own net.
LEFTOVERS = re.compile("TOD[O]|FIXM[E]|XX[X]|/hom[e]/|/wor[k]/|/roo[t]/")


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def requirements(text: str) -> set[str]:
    """Names of the distributions in a list of requirements."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[<>=\[ ]", line)[0] for line in lines if line}


def own_files() -> list[Path]:
    """Files of the repository, as git sees them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy of the source is not a git repository")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == phicalc.__version__
    assert setup_cfg()["metadata"]["version"] == "attr: phicalc._version.__version__"


def test_every_public_name_is_there():
    for name in phicalc.__all__:
        assert getattr(phicalc, name) is not None
        assert name in dir(phicalc)
    assert phicalc.AtomicGraph is AtomicGraph


def test_unknown_public_name_says_what_there_is():
    with pytest.raises(AttributeError, match="'PhiCalculater'.*PhiCalculator"):
        _ = phicalc.PhiCalculater


def test_metadata_lives_in_setup_cfg_alone():
    with (ROOT / "pyproject.toml").open("rb") as stream:
        assert "project" not in tomllib.load(stream)


def test_project_urls_lead_somewhere():
    urls = dict(
        line.split(" = ") for line in setup_cfg()["metadata"]["project_urls"].split("\n")[1:]
    )
    assert {"Documentation", "Source", "Changelog"} <= set(urls)
    for name, url in urls.items():
        assert url.startswith("https://") or (ROOT / url).exists(), f"{name}: {url}"


def test_extra_all_holds_all_but_compiled_code_benchmarks_and_documentation():
    extras = setup_cfg()["options.extras_require"]
    held = set(re.findall(r"phicalc\[(\w+)\]", extras["all"]))
    assert held == set(extras) - {"all", "bench", "cluster", "docs"}


def test_every_direct_dependency_is_pinned():
    config = setup_cfg()
    wanted = requirements(config["options"]["install_requires"])
    for extra, text in config["options.extras_require"].items():
        wanted |= requirements(text) if extra != "all" else set()
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert wanted - requirements(constraints) == set()
    assert all("==" in line for line in constraints.splitlines() if line and line[0] != "#")


def test_shipped_models_are_installed():
    installed = Path(str(files("phicalc.models")))
    patterns = setup_cfg()["options.package_data"]["phicalc.models"].split()
    shipped = [p.relative_to(ROOT / "models") for p in own_files() if ROOT / "models" in p.parents]
    for path in shipped:
        if path.suffix in (".py", ".gz"):  # training data stay in the repository
            continue
        assert any(fnmatch(str(path), pattern) for pattern in patterns), path
        assert (installed / path).is_file()
    assert (installed / "__init__.py").is_file()


def test_commands_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"^(?:.*`)?make ([a-z]+)", text, re.MULTILINE))
        assert named, f"{name} names no make target"
        assert named <= targets, f"{name} names {sorted(named - targets)}"


def test_files_are_tidy():
    wrong = []
    for path in own_files():
        where = path.relative_to(ROOT)
        if path.stat().st_size > MAX_MEGABYTES * 1e6:
            wrong.append(f"{where} is larger than {MAX_MEGABYTES} MB")
        if path.suffix in BINARY or str(where) in FOREIGN:
            continue
        text = path.read_text(encoding="utf-8")
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            wrong.append(f"{where} does not end with one newline")
        for number, line in enumerate(text.splitlines(), 1):
            if line != line.rstrip():
                wrong.append(f"{where}:{number} has spaces at its end")
            if "\t" in line and path.name != "Makefile":
                wrong.append(f"{where}:{number} has a tab")
            if LEFTOVERS.search(line):
                wrong.append(f"{where}:{number} has a leftover: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_shapes_are_checked_in_this_run():
    graph = from_ase(Atoms("H"), cutoff=3.0)
    with pytest.raises(TypeCheckError, match="per_atom"):
        sum_per_structure(torch.zeros(1, dtype=torch.float32), graph)


def test_warnings_are_errors_in_this_run():
    with pytest.raises(UserWarning, match="probe"):
        warnings.warn("probe", stacklevel=1)


def test_every_row_of_the_table_of_faults_has_tests() -> None:
    rows = [
        row for row in (ROOT / "tests/FAULTS.md").read_text().splitlines() if row.startswith("| ")
    ]
    rows = [row.strip("|").split("|") for row in rows if "---" not in row]
    named = {"W": 0, "D": 0}
    for first, *_, tests in rows:
        if tests.strip().startswith("tests"):  # a head
            continue
        kind = re.match(r" ([WD])\d+ $", first)
        if kind is not None:
            named[kind[1]] += 1
        for group in tests.split(";"):
            file, _, names = group.strip().partition(": ")
            source = (ROOT / "tests" / file).read_text()
            assert "`test_" in names, f"{first} names no test in {file}"
            for name in re.findall(r"`(test_\w+)`", names):
                assert f"def {name}(" in source, f"{file} has no {name}"
    assert named == {"W": 15, "D": 16}
