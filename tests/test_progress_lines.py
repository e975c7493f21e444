"""Lines of long tasks: none at first, then fewer and fewer."""

from __future__ import annotations

from phicalc import progress


def test_lines_become_rarer(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines = progress.Progress("relax")
    printed = []
    for second in range(1, 1001):
        now = float(second)
        if lines(f"step {second}"):
            printed.append(second)
    assert printed[:3] == [10, 25, 48]  # pauses of 10, 15, 22.5 s
    assert len(printed) == 9
    assert capsys.readouterr().err.startswith("relax: step 10 (10 s)\nrelax: step 25 (25 s)\n")
