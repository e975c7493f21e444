"""Classes by name: import paths only with permission, and errors that help."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from phicalc.plugins import find_class, is_foreign

KNOWN = {"ordered": "collections:OrderedDict", "counter": "collections:Counter"}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of modules that can be imported, and are forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("plugin_good", "plugin_broken", "plugin_needs"):
        sys.modules.pop(name, None)


def find(name: object, *, allow_import: bool = True) -> type:
    return find_class(name, KNOWN, allow_import=allow_import, kind="backbone")


def test_known_names_need_no_permission():
    from collections import Counter, OrderedDict

    assert find("ordered", allow_import=False) is OrderedDict
    assert find("counter") is Counter


def test_foreign_code_runs_with_permission_only(modules):
    (modules / "plugin_good.py").write_text("class Net: ...\nNumber = 3\n")
    with pytest.raises(ValueError, match="code outside phicalc.*allow_import=True"):
        find("plugin_good:Net", allow_import=False)
    assert "plugin_good" not in sys.modules
    assert find("plugin_good:Net") is sys.modules["plugin_good"].Net
    with pytest.raises(ValueError, match="allow_import=True"):  # imported by others or not
        find("plugin_good:Net", allow_import=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orderd", "unknown backbone 'orderd'. Did you mean 'ordered'"),
        ("Counter", "Did you mean 'counter'"),
        ("xyz", "Known: counter, ordered; write the import path 'package.module:Class'"),
        ("", "unknown backbone ''"),
        (3, "must be a text, got 3"),
        (None, "must be a text, got None"),
        ("a:b:c", "must be 'package.module:Class', got 'a:b:c'"),
        (":Net", "must be 'package.module:Class', got ':Net'"),
        ("module:", "must be 'package.module:Class', got 'module:'"),
        ("../evil:Net", "must be 'package.module:Class'"),
        ("nowhere_at_all:Net", "no module named 'nowhere_at_all'.*PYTHONPATH"),
        ("collections.nowhere:Net", "no module named 'collections.nowhere'"),
        ("plugin_good:Nte", "module 'plugin_good' has no class 'Nte'. Did you mean 'Net'"),
        ("plugin_good:Number", "has a int, not a class, 'Number'"),
        ("plugin_broken:Net", "importing 'plugin_broken' failed: ZeroDivisionError"),
        ("plugin_needs:Net", "importing 'plugin_needs' failed: ModuleNotFoundError.*nothing_here"),
    ],
)
def test_errors_say_what_to_do(modules, name, message):
    (modules / "plugin_good.py").write_text("class Net: ...\nNumber = 3\n")
    (modules / "plugin_broken.py").write_text("1 / 0\n")
    (modules / "plugin_needs.py").write_text("import nothing_here\n")
    with pytest.raises(ValueError, match=message):
        find(name)


def test_import_paths_are_told_from_names():
    assert is_foreign("package.module:Class")
    assert not is_foreign("nequip")
