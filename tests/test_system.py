from __future__ import annotations

import ctypes
import os
import sys

import pytest
import torch

from phicalc.system import advice_on_threads, keep_freed_memory, thread_count


def test_threads_are_set_inside_only():
    before = torch.get_num_threads()
    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), thread_count(before + 2):
        raise KeyError
    assert torch.get_num_threads() == before
    with thread_count(None):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("load", "threads", "advised"), [(7.0, 2, True), (7.0, 1, False), (2.0, 2, False)]
)
def test_threads_on_busy_cores_are_advised_against(load, threads, advised, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    with thread_count(threads):
        advice = advice_on_threads()
    assert (advice is not None) == advised
    assert not advised or "7 programs want to run on 2 cores, and 2 threads" in str(advice)


def test_memory_setting_reaches_the_allocator():
    has_mallopt = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
    assert keep_freed_memory() == has_mallopt


def test_systems_without_the_setting_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
