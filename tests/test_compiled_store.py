"""Compiled functions on disk: only intact ones that nobody else can have written are loaded."""

from __future__ import annotations

import ast
import logging
import os
import pwd
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from phicalc import progress
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.compiled import CompiledPredictor, cache, cache_folder, store, trust
from phicalc.compiled.messages import compiling
from phicalc.compiled.store import Store

from .tiny import charged_potential

POSIX = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")


@pytest.fixture(autouse=True)
def nothing_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace torch's loader by one that notes what it is given; forget what was loaded before."""
    seen: list[Path] = []

    def load(path: Path) -> Callable[..., list[torch.Tensor]]:
        seen.append(path)
        return lambda *inputs: [2 * each for each in inputs]

    monkeypatch.setattr(store, "load_function", load)
    monkeypatch.setattr(store, "_loaded", {})
    monkeypatch.setattr(store, "_own_folders", [])
    monkeypatch.setattr(store, "_warned", set())
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write(paths: list[Path]) -> None:
    for path in paths:
        path.write_bytes(b"machine code of " + path.name.encode())


def filled(folder: Path | None, *names: str) -> Store:
    result = Store(folder)
    result.fill(names or ("one",), write)
    return result


def never(paths: list[Path]) -> None:
    raise AssertionError("nothing is to be compiled here")


def test_what_was_kept_is_loaded_once_in_each_process(folder, nothing_is_in_memory):
    """Functions stay in memory for ever once they are loaded: 7.7 MB for each calculator."""
    kept = filled(folder, "one", "two")
    first = kept.load(["one", "two"])
    again = [Store(folder).load(["one", "two"]) for _ in range(20)]
    assert all(a is b for each in again for a, b in zip(each, first, strict=True))
    assert [path.name[:4] for path in nothing_is_in_memory] == ["one.", "two."]
    assert first[0](torch.ones(1)) == [torch.tensor([2.0])]


def test_functions_are_closed_at_the_end(folder):
    (function,) = filled(folder).load(["one"])
    store._close()
    with pytest.raises(RuntimeError, match="shuts down"):
        function()


def test_functions_that_belong_together_come_together(folder):
    kept = filled(folder, "forward", "backward")
    next(folder.glob("backward.*")).unlink()
    assert kept.load(["forward", "backward"]) is None
    assert kept.load(["forward"]) is not None


def test_every_flipped_bit_is_noticed(folder, nothing_is_in_memory, caplog):
    """A damaged function is a SIGILL at every start."""
    kept = filled(folder)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        caplog.clear()
        assert kept.load(["one"]) is None
        assert not path.exists()
        assert [record.getMessage().count("is damaged") for record in caplog.records] == [1]
    for shorter in (b"", content[:-1], content + b"x"):
        path.write_bytes(shorter)
        assert kept.load(["one"]) is None
    assert nothing_is_in_memory == []


def test_damaged_functions_are_replaced(folder, caplog):
    filled(folder)
    (path,) = folder.iterdir()
    path.write_bytes(b"rubbish")
    found = Store(folder).obtain(["one"], "the network", write)
    assert found[0](torch.ones(1)) == [torch.tensor([2.0])]
    assert path.is_file()
    assert sum("is damaged" in record.getMessage() for record in caplog.records) == 1
    caplog.clear()
    assert Store(folder).obtain(["one"], "the network", never)
    assert not caplog.records


@POSIX
def test_only_the_user_can_write_what_is_kept(folder):
    before = os.umask(0)
    try:
        filled(folder)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o722, 0o770, 0o720, 0o1777])
def test_folders_that_others_can_write_are_not_loaded_from(folder, mode, caplog, monkeypatch):
    kept = filled(folder)
    folder.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert kept.load(["one"]) is None
        assert kept.load(["one"]) is None
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"others can write to {folder} (mode {mode:o}" in message
    assert "PHICALC_CACHE" in message
    kept.fill(["one"], write)  # for this process
    assert len(list(folder.iterdir())) == 1
    assert kept.load(["one"]) is not None
    (own,) = store._own_folders
    assert [path.name[:4] for path in own.iterdir()] == ["one."]
    assert own.stat().st_mode & 0o777 == 0o700
    store._remove_folder(own, os.getpid() + 1)  # a fork
    assert own.is_dir()
    store._remove_folder(own, os.getpid())
    assert not own.exists()


@POSIX
@pytest.mark.parametrize("mode", [0o666, 0o602, 0o620])
def test_files_that_others_can_write_are_not_loaded(folder, mode, caplog):
    kept = filled(folder)
    (path,) = folder.iterdir()
    path.chmod(mode)
    assert kept.load(["one"]) is None
    assert f"is not loaded: others can write to {path}" in caplog.text
    assert path.exists()


@POSIX
def test_links_are_not_loaded(folder, tmp_path, caplog):
    kept = filled(folder)
    (path,) = folder.iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert kept.load(["one"]) is None
    assert "no regular file" in caplog.text


@POSIX
@pytest.mark.parametrize("owner", ["file", "folder", "above"])
def test_what_belongs_to_another_user_is_not_loaded(folder, owner, caplog, monkeypatch):
    """By default a world-writable folder would run anybody's code."""
    kept = filled(folder)
    (path,) = folder.iterdir()
    foreign = {"file": path, "folder": folder, "above": folder.parent}[owner].stat()
    if os.geteuid() == 0:
        os.chown({"file": path, "folder": folder, "above": folder.parent}[owner], 12345, -1)
    else:  # see this file or folder as somebody else's

        def seen(at: Path, real: Callable[[Path], os.stat_result]) -> os.stat_result:
            found = real(at)
            same = (found.st_dev, found.st_ino) == (foreign.st_dev, foreign.st_ino)
            return os.stat_result((*found[:4], 12345, *found[5:])) if same else found

        for name in ("stat", "lstat"):
            real = getattr(Path, name)
            monkeypatch.setattr(Path, name, lambda at, real=real: seen(at, real))
    assert kept.load(["one"]) is None
    assert "belongs to another user (12345" in caplog.text


@POSIX
def test_folders_above_may_be_shared_under_the_sticky_bit_only(folder, caplog):
    kept = filled(folder)
    folder.parent.chmod(0o777)
    assert "others can write to" in trust.distrust(folder)
    assert kept.load(["one"]) is None
    folder.parent.chmod(0o1777)
    assert trust.distrust(folder) is None
    assert kept.load(["one"]) is not None


@POSIX
def test_a_folder_is_judged_by_where_it_really_is(folder, tmp_path):
    filled(folder)
    folder.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert "others can write to" in trust.distrust(link)


def test_failures_leave_nothing_behind(folder):
    def fail(paths: list[Path]) -> None:
        paths[0].write_bytes(b"half")
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError, match="no compiler"):
        Store(folder).fill(["one", "two"], fail)
    assert list(folder.iterdir()) == []


def test_folders_that_cannot_be_made_are_no_obstacle(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for impossible in (None, tmp_path / "file" / "cache", tmp_path / "file"):
        assert filled(impossible).load(["one"]) is not None


def test_users_without_a_home_compute(monkeypatch, tmp_path):
    """Containers run with user numbers that no list of users has, and without HOME."""

    def unknown(_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "PHICALC_CACHE", "XDG_CACHE_HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    assert cache_folder() is None
    potential = charged_potential()
    for mode in (False, "auto", True):
        assert CompiledPredictor(potential, mode).folder is None
        calc = PhiCalculator(potential, compile=mode, device="cpu")
        if mode is not True:
            from ase.build import molecule

            assert calc.get_potential_energy(molecule("H2O")) != 0
    assert filled(None).load(["one"]) is not None
    assert trust.distrust(tmp_path) is None


def test_relative_cache_folders_are_ignored(monkeypatch):
    monkeypatch.delenv("PHICALC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_folder() == Path.home() / ".cache" / "phicalc"


def test_waiting_is_commented(caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    with caplog.at_level(logging.WARNING), compiling("the network", tmp_path):
        time.sleep(0.3)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith(f"compiling the network for {tmp_path}")
    assert messages[1] == "still compiling the network: 0 s so far"
    assert len(messages) >= 4
    assert messages[-1] == "finished compiling the network after 0 s"


def test_short_waits_are_not_commented(caplog, tmp_path):
    with caplog.at_level(logging.WARNING), compiling("the network", tmp_path):
        pass
    assert len(caplog.records) == 1


def imported_parts(module: str, seen: set[str]) -> set[str]:
    """All modules of the package that a module imports, and those that they import."""
    path = cache._PACKAGE / (module.replace(".", "/") + ".py")
    path = path if path.is_file() else cache._PACKAGE / module.replace(".", "/") / "__init__.py"
    if module in seen or not path.is_file():
        return seen
    seen.add(module)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phicalc."):
            base = node.module.removeprefix("phicalc.")
            for name in [base, *(f"{base}.{alias.name}" for alias in node.names)]:
                imported_parts(name, seen)
    return seen


#: What `phicalc.derivatives` imports, and what no result of a compiled function depends on: the
#: making of graphs and the reading of settings.
NOT_COMPILED = {
    "neighbors", "skin", "structures", "schema", "kinds", "plugins", "hints", "system", "state",
    "_version", "_exports",
}  # fmt: skip


def test_key_covers_the_code_that_is_compiled():
    parts = {name.split(".")[0] for name in imported_parts("derivatives", set())}
    assert {"backbone", "electrostatics", "nn", "graph", "potential"} <= parts
    assert parts - set(cache.SOURCES) - NOT_COMPILED == set()


def test_key_depends_on_no_other_code(tmp_path):
    """A comment in the command line made every compiled model be compiled anew."""
    for part in ("cli", "md", "backbone", "electrostatics/charges"):
        (tmp_path / part).mkdir(parents=True)
    for name in ("cli/run", "md/driver", "backbone/net", "electrostatics/charges/q", "potential"):
        (tmp_path / f"{name}.py").write_text("x = 1")
    digests = [cache.source_digest(tmp_path)]
    for name in ("cli/run", "md/driver"):
        (tmp_path / f"{name}.py").write_text("x = 2")
        assert cache.source_digest(tmp_path) == digests[0]
    for name in ("backbone/net", "electrostatics/charges/q", "potential"):
        (tmp_path / f"{name}.py").write_text("x = 2")
        digests.append(cache.source_digest(tmp_path))
    assert len(set(digests)) == len(digests)


def test_key_depends_on_foreign_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "foreign_network.py"
    file.write_text("from torch import nn\nclass Net(nn.Module): ...\n")
    import foreign_network

    whole = nn.Sequential(nn.Linear(1, 1), foreign_network.Net())
    before = cache._foreign_digest(whole)
    assert before != cache._foreign_digest(nn.Sequential(nn.Linear(1, 1)))
    file.write_text(file.read_text() + "# another version\n")
    assert cache._foreign_digest(whole) != before
    sys.modules.pop("foreign_network")


def test_key_depends_on_the_processor(monkeypatch):
    cache.processor.cache_clear()
    here = cache.processor()
    text = Path.read_text

    def other(path: Path, *arguments: object, **options: object) -> str:
        if str(path) == "/proc/cpuinfo":
            return "model name\t: Other\nflags\t: fpu sse2 avx512f\n"
        return text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", other)
    cache.processor.cache_clear()
    assert cache.processor().endswith("Other avx512f sse2")
    assert cache.processor() != here
    cache.processor.cache_clear()
