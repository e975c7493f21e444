from __future__ import annotations

import ctypes
import sys

import pytest
import torch

from phicalc.system import keep_freed_memory, thread_count


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


def test_memory_setting_reaches_the_allocator():
    has_mallopt = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
    assert keep_freed_memory() == has_mallopt


def test_systems_without_the_setting_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
