"""The tests end, however they are started and whatever their children do."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tests.processes import ending

SLEEPING = "import sys, time; print('ready', flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPING!r}], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""
DEAF = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_child_hears_an_interrupt() -> None:
    command = [sys.executable, "-c", SLEEPING]
    with ending(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == -signal.SIGINT


def test_a_child_hears_it_in_the_background_of_a_script() -> None:
    """There SIGINT is ignored, and children inherit that."""
    inner = f"{__file__}::{test_a_child_hears_an_interrupt.__name__}"
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", inner]
    ran = subprocess.run(
        [sys.executable, "-c", DEAF, *tests], capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_test_that_fails_ends_what_it_started() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert process.stdout is not None
    grandchild = psutil.Process(int(process.stdout.readline()))
    with pytest.raises(TimeoutError), ending(process):
        raise TimeoutError  # as the time limit does
    assert process.returncode == -signal.SIGKILL
    psutil.wait_procs([grandchild], timeout=60)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
