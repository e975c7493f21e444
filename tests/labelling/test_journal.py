"""The journal of a labelling run: what a kill leaves is continued, damage is refused."""

from __future__ import annotations

import json

import pytest

from phicalc.labelling.journal import Journal

SETTINGS = {"calculator": {"name": "x"}, "seed": 1}
ENTRIES = [{"chain": 0, "frame": n, "labels": {"energy": 0.1 * n}} for n in range(4)]


@pytest.fixture
def path(tmp_path):
    """Return a journal with four frames."""
    journal = Journal(tmp_path / "out.journal", SETTINGS)
    assert journal.open() == []
    for entry in ENTRIES:
        journal.append(entry)
    return journal.path


def test_entries_come_back_and_go_on(path):
    journal = Journal(path, SETTINGS)
    assert journal.open() == ENTRIES
    journal.append({"chain": 1})
    assert Journal(path, SETTINGS).open() == [*ENTRIES, {"chain": 1}]


@pytest.mark.parametrize("left", range(1, 90, 8))
def test_lines_that_a_kill_cut_off_are_dropped(left, path):
    content = path.read_bytes()
    path.write_bytes(content[:-left])
    journal = Journal(path, SETTINGS)
    assert journal.open() == ENTRIES[:-1]
    journal.append(ENTRIES[-1])
    assert path.read_bytes() == content


def test_every_flipped_bit_is_refused(path):
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"out.journal is damaged.*remove the file"):
            Journal(path, SETTINGS).open()


@pytest.mark.parametrize("change", ["lost", "moved", "twice"])
def test_lines_out_of_order_are_refused(change, path):
    lines = path.read_bytes().splitlines(keepends=True)
    lines = {
        "lost": [*lines[:2], *lines[3:]],
        "moved": [*lines[:2], lines[3], lines[2], lines[4]],
        "twice": [*lines[:3], lines[2], *lines[3:]],
    }[change]
    path.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match="cut it before that line to keep [12] frames, or remove"):
        Journal(path, SETTINGS).open()


def test_other_settings_are_refused(path):
    with pytest.raises(ValueError, match="belongs to a run with other settings .seed: 1 → 2"):
        Journal(path, SETTINGS | {"seed": 2}).open()


def test_journals_of_earlier_versions_get_checksums(tmp_path):
    path = tmp_path / "old.journal"
    path.write_text("".join(json.dumps(line) + "\n" for line in [SETTINGS, *ENTRIES]) + '{"cut')
    with pytest.warns(UserWarning, match="earlier version of phicalc, without checksums"):
        assert Journal(path, SETTINGS).open() == ENTRIES
    assert Journal(path, SETTINGS).open() == ENTRIES
