"""The hint what to install fits the installation."""

from __future__ import annotations

import json

import pytest

from phicalc import hints


class Installed:
    """A distribution with a record of where it came from."""

    def __init__(self, record: dict | None):
        self.record = record

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.record is None else json.dumps(self.record)


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, 'pip install "phicalc[mesh]"'),
        ({"url": "file:///a/b.whl", "archive_info": {}}, 'pip install "phicalc[mesh]"'),
        (
            {"url": "file://TMP/b%20c", "dir_info": {"editable": True}},
            'pip install -e "TMP/b c[mesh]"',
        ),
        ({"url": "file://TMP/b%20c", "dir_info": {}}, 'pip install "TMP/b c[mesh]"'),
        ({"url": "file://TMP/gone", "dir_info": {}}, 'pip install "phicalc[mesh]"'),
    ],
)
def test_a_clone_is_asked_for_its_own_extra(record, command, tmp_path, monkeypatch):
    (tmp_path / "b c").mkdir()
    command = command.replace("TMP", str(tmp_path))
    if record is not None:
        record = record | {"url": record["url"].replace("TMP", str(tmp_path))}
    monkeypatch.setattr(hints, "distribution", lambda _: Installed(record))
    assert hints.install_hint("mesh") == command
    with_option = command.replace("install", "install --no-deps")
    assert hints.install_hint("mesh", options="--no-deps") == with_option


def test_an_unpacked_source_gets_the_usual_hint(monkeypatch):
    def missing(name):
        raise hints.PackageNotFoundError(name)

    monkeypatch.setattr(hints, "distribution", missing)
    assert hints.install_hint("label") == 'pip install "phicalc[label]"'
