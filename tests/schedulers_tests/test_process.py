from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from schedulers.process import boot_id, is_running, start_ticks

if sys.platform != "linux":
    pytest.skip("only Linux tells", allow_module_level=True)


def test_a_process_knows_itself() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    assert is_running(os.getpid(), ticks)
    assert is_running(os.getpid(), None)
    assert not is_running(os.getpid(), ticks + 1)
    assert is_running(1, None)


def test_a_dead_process_is_gone_even_before_its_parent_has_looked() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(process.pid)
    assert is_running(process.pid, ticks)
    process.kill()
    deadline = time.monotonic() + 10.0
    while is_running(process.pid, ticks):
        assert time.monotonic() < deadline
    assert start_ticks(process.pid) is None
    process.communicate()
    assert not is_running(process.pid, ticks)


def test_the_boot_is_the_same_for_all_processes() -> None:
    code = "from schedulers.process import boot_id; print(boot_id())"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == boot_id() != ""
