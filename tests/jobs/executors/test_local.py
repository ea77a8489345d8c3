"""The local executor with real processes: found again, ended in order or by force, remembered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from app.errors import StorageFailed
from app.jobs.executors import Status
from app.jobs.executors.local import LocalExecutor
from app.jobs.executors.local import _reference as reference_of
from app.jobs.executors.processes import RunnerProcess, host_name
from app.jobs.values import Claim
from tests.jobs.making import wait_for
from tests.processes import ending

CLAIM = Claim("01ARZ3NDEKTSV4RRFFQ69G5FAV", 1, 1)


@pytest.fixture
def executor(tmp_path: Path) -> LocalExecutor:
    """Its runners find no tables, say so and end."""
    return LocalExecutor(
        {"CHARLOOM_DATABASE_URL": f"sqlite:///{tmp_path / 'none.sqlite3'}", "OMP_NUM_THREADS": "1"},
        tmp_path / "runners",
    )


def test_a_runner_that_crashes_leaves_its_last_words(executor: LocalExecutor) -> None:
    reference = executor.start(CLAIM)
    assert reference.startswith(host_name() + "/")
    wait_for(lambda: executor.status(reference) is Status.GONE)
    assert executor.exit_code(reference) == 1
    assert "no such table" in executor.last_words(CLAIM)
    assert len(executor.last_words(CLAIM).encode()) <= 8_000
    executor.tidy()
    assert executor.status(reference) is Status.GONE  # known by its process no more
    executor.stop(reference, force=True)


def test_a_runner_sees_none_of_the_servers_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given those that it needs, never the key; others' credentials stay."""
    monkeypatch.setenv("CHARLOOM_API_KEY", "sesame")
    monkeypatch.setenv("CHARLOOM_TRUSTED_NETWORK", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "theirs")
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    monkeypatch.setattr("app.jobs.executors.local.runner_command", lambda _: ["-c", show])
    executor = LocalExecutor({"CHARLOOM_THREADS": "1"}, tmp_path / "runners")
    reference = executor.start(CLAIM)
    wait_for(lambda: executor.status(reference) is Status.GONE)
    seen = json.loads(executor.last_words(CLAIM))
    assert [name for name in seen if name.startswith("CHARLOOM_")] == ["CHARLOOM_THREADS"]
    assert seen["AWS_ACCESS_KEY_ID"] == "theirs"
    assert "sesame" not in seen.values()


def test_a_process_is_found_again_by_its_reference(executor: LocalExecutor) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with ending(subprocess.Popen(command, start_new_session=True)) as child:
        reference = reference_of(RunnerProcess.of(child.pid))
        assert executor.status(reference) is Status.ALIVE
        executor.stop(reference, force=False)
        assert child.wait(10) == -signal.SIGTERM
        assert executor.status(reference) is Status.GONE


def test_a_runner_that_ends_between_two_looks_keeps_its_exit_code(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen as gone before it was waited for, it would be a loss that nobody can explain."""
    reference = executor.start(CLAIM)
    with monkeypatch.context() as patch:
        patch.setattr(RunnerProcess, "status", lambda process: Status.GONE)
        wait_for(lambda: executor.status(reference) is Status.GONE)
    assert executor.exit_code(reference) == 1


def test_setting_the_clock_makes_no_runner_another(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reference_of(RunnerProcess.own())
    told = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: told + 3600.0)
    assert psutil.boot_time() == told + 3600.0
    assert executor.status(reference) is Status.ALIVE


def test_a_process_by_the_same_number_is_another(executor: LocalExecutor) -> None:
    host, pid, started = reference_of(RunnerProcess.own()).split("/")
    assert executor.status(f"{host}/{pid}/{started}") is Status.ALIVE
    assert executor.status(f"{host}/{pid}/{float(started) - 100}") is Status.GONE
    assert executor.status(f"elsewhere/{pid}/{started}") is Status.UNKNOWN


def test_a_dead_child_that_nobody_has_asked_after_is_gone(executor: LocalExecutor) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    reference = reference_of(RunnerProcess.of(child.pid))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert executor.status(reference) is Status.GONE
    child.wait()


def test_last_words_can_be_kept_by_any_database(tmp_path: Path) -> None:
    log = tmp_path / f"{CLAIM.job_id}-{CLAIM.number}.log"
    log.write_bytes(b"x" * 20_000 + b"\xff\0 end\n")
    assert LocalExecutor({}, tmp_path).last_words(CLAIM).endswith("x\ufffd\ufffd end")


def test_a_machine_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="The training process could not be started"):
        LocalExecutor({}, tmp_path / "file").start(CLAIM)
    assert LocalExecutor({}, tmp_path / "none").last_words(CLAIM) == ""


def test_a_runner_that_nobody_came_to_store_is_found_by_its_claim(executor: LocalExecutor) -> None:
    """Its dispatcher died between starting it and storing where it is."""
    arguments = [CLAIM.job_id, str(CLAIM.number), str(CLAIM.token)]
    sleeping = "import time; time.sleep(60)"
    with ending(subprocess.Popen([sys.executable, "-c", sleeping, *arguments])) as child:
        found = wait_for(lambda: executor.find(CLAIM))
        assert found == reference_of(RunnerProcess.of(child.pid))
        assert executor.status(found) is Status.ALIVE
        assert executor.find(Claim(CLAIM.job_id, 2, 2)) is None


def test_each_runner_gets_the_gpu_that_the_fewest_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the first of two has ended: the third gets its GPU, not the busy one."""
    show = "import os,sys,time; print(os.environ['CUDA_VISIBLE_DEVICES']); sys.stdout.flush()"
    monkeypatch.setattr(
        "app.jobs.executors.local.runner_command",
        lambda claim: ["-c", show if claim.number == 1 else f"{show}; time.sleep(30)"],
    )
    executor = LocalExecutor({}, tmp_path, gpus=["4", "7"])

    def gone(reference: str) -> bool:
        return executor.status(reference) is Status.GONE

    claims = [Claim("job", number, 1) for number in (1, 2, 3)]
    first = executor.start(claims[0])
    second = executor.start(claims[1])
    wait_for(partial(gone, first))
    third = executor.start(claims[2])
    try:
        shown = [wait_for(partial(executor.last_words, claim)) for claim in claims]
        assert shown == ["4", "7", "4"]
    finally:
        for reference in (second, third):
            executor.stop(reference, force=True)
            wait_for(partial(gone, reference))
