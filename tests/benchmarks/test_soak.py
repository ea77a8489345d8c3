"""What the mixed-load run judges: a fault of each kind makes its criterion fail, and only it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.soak.__main__ import _figures
from benchmarks.soak.crowd import Workload, World, crowd
from benchmarks.soak.prober import Probe
from benchmarks.soak.process import Life, Server
from benchmarks.soak.samples import Flatness, Sample, draw, write_table
from benchmarks.soak.tally import CUT, REFUSED, RESET, TIMEOUT, Tally
from benchmarks.soak.verdict import Run, documented_codes, verdict
from benchmarks.soak.wire import Cut, NoAnswer, code_of

TRACEBACK = """12:00:00 ERROR   request failed
    Traceback (most recent call last):
      File "x.py", line 1, in <module>

    ValueError: wrong
12:00:01 INFO    on
"""


def good_run(folder: Path) -> Run:
    """A run of 400 s with one process, in which nothing was wrong."""
    log = folder / "server-1.log"
    log.write_text("12:00:00 INFO    GET /livez 200\n")
    life = Life(7, log, started=0.0, ready=1.0, signalled=401.0, gone=403.0, exit_code=0)
    tally = Tally()
    for status, code in ((200, ""), (503, "draining"), (400, "invalid_json")):
        tally.answer("score", status, code)
    tally.answer("bulk", "line", "invalid_type")
    tally.answer("bulk", 200)
    probes = [Probe(1.0 + second, 2.0, "200", 0.1) for second in range(395)]
    samples = [Sample(second, 1, 500.0, 16, 40, 1) for second in range(1, 400)]
    names = frozenset({"score", "bulk"})
    return Run(Server(0, folder, {}, [life]), tally, probes, samples, names, names)


def failed(run: Run) -> list[str]:
    return [each.name for each in verdict(run) if not each.met]


def test_a_good_run_meets_every_criterion(tmp_path: Path) -> None:
    assert failed(good_run(tmp_path)) == []


def _moment(run: Run, kind: str, moment: float, workload: str = "bulk") -> None:
    run.tally.failure(workload, kind)
    run.tally.moments[workload, kind][-1] = moment


FAULTS: dict[str, tuple[str, Callable[[Run], None]]] = {
    "500": ("no 5xx", lambda run: run.tally.answer("score", 500, "internal_error")),
    "unknown 503": ("no 5xx", lambda run: run.tally.answer("score", 503, "?")),
    "500 in a stream": ("no 5xx", lambda run: run.tally.answer("bulk", "event", "internal_error")),
    "cut": ("no answer is cut", lambda run: _moment(run, CUT, 200.0)),
    "cut at the end": ("no answer is cut", lambda run: _moment(run, CUT, 402.0)),
    "late": ("no request hangs", lambda run: _moment(run, TIMEOUT, 200.0)),
    "reset": ("no request goes without", lambda run: _moment(run, RESET, 200.0)),
    "refused": ("nobody is refused", lambda run: _moment(run, REFUSED, 200.0)),
    "client": ("the clients themselves", lambda run: run.tally.failure("score", "client: x")),
    "traceback": ("no traceback", lambda run: _log(run, TRACEBACK)),
    "killed": ("the server ends", lambda run: setattr(run.server.lives[0], "killed", True)),
    "slow end": ("the server ends", lambda run: setattr(run.server.lives[0], "signalled", 360.0)),
    "exit code": ("the server ends", lambda run: setattr(run.server.lives[0], "exit_code", 1)),
}


def _log(run: Run, text: str) -> None:
    run.server.lives[0].log.write_text(text)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_criterion_alone(fault: str, tmp_path: Path) -> None:
    criterion, do = FAULTS[fault]
    run = good_run(tmp_path)
    do(run)
    (name,) = failed(run)
    assert name.startswith(criterion)


def test_what_may_happen_between_two_processes_is_no_fault(tmp_path: Path) -> None:
    run = good_run(tmp_path)
    for kind in (RESET, REFUSED):
        _moment(run, kind, 404.0)
    _moment(run, CUT, 200.0, "a client that leaves")
    run = replace(run, probes=[*run.probes, Probe(404.0, 0.1, "refused", 0.0)])
    assert failed(run) == []


@pytest.mark.parametrize("probe", [(150.0, "200"), (1.0, "503"), (1.0, "refused"), (9e3, "reset")])
def test_a_slow_or_wrong_probe_fails(probe: tuple[float, str], tmp_path: Path) -> None:
    run = good_run(tmp_path)
    run = replace(run, probes=[*run.probes, Probe(300.0, *probe, 0.0)])
    assert failed(run) == ["/livez within 100 ms"]


@pytest.mark.parametrize("grown", [0.1, 1.0])
def test_what_grows_is_not_flat(grown: float, tmp_path: Path) -> None:
    run = good_run(tmp_path)
    rising = [replace(s, megabytes=500 + grown * s.seconds) for s in run.samples]
    assert failed(replace(run, samples=rising)) == (["megabytes flat"] if grown == 1.0 else [])


def test_flatness_is_of_the_right_quarters() -> None:
    flat = Flatness.of([60.0 * n for n in range(8)], [9, 9, 3, 2, 1, 2, 3, 4])
    assert (flat.second_quarter, flat.last_quarter) == (3, 4)
    assert flat.slope == pytest.approx(1.0)


def test_a_workload_without_answers_is_told(tmp_path: Path) -> None:
    run = good_run(tmp_path)
    assert failed(replace(run, workloads=run.workloads | {"rank"})) == [
        "every workload gets answers"
    ]


def test_the_documented_codes_are_read_from_the_page() -> None:
    assert {"draining", "overloaded", "model_memory_full"} <= documented_codes("503")
    assert "internal_error" not in documented_codes("503")


def test_codes_of_errors() -> None:
    assert code_of(b'{"error": {"code": "draining"}}') == "draining"
    assert [code_of(body) for body in (b"", b"[]", b'{"error": "x"}', b"Internal")] == ["?"] * 4


def test_no_failure_of_a_client_ends_the_run() -> None:
    failures: list[Exception] = [
        ConnectionRefusedError(),
        TimeoutError(),
        Cut(),
        NoAnswer(),
        ZeroDivisionError("by zero"),
    ]
    rounds = 0

    async def once(world: World) -> None:
        nonlocal rounds
        rounds += 1
        raise failures[rounds % len(failures)]

    async def run(tally: Tally) -> None:
        task = asyncio.create_task(crowd(World(0, tally, [], b""), [Workload("x", once, pause=0)]))
        while rounds < 10:
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    tally = Tally()
    asyncio.run(run(tally))
    kinds = {status for _, status, _ in tally.counts}
    assert kinds == {REFUSED, TIMEOUT, CUT, RESET, "client: ZeroDivisionError: by zero"}


def test_table_and_picture(tmp_path: Path) -> None:
    samples = good_run(tmp_path).samples[:20]
    write_table(samples, tmp_path / "soak.tsv")
    draw(samples, tmp_path / "soak.svg")
    assert (tmp_path / "soak.tsv").read_text().splitlines()[1] == "1\t1\t500\t16\t40\t1"
    assert "resident memory, MB" in (tmp_path / "soak.svg").read_text()


def test_the_page_of_results_shows_the_run(tmp_path: Path) -> None:
    run = good_run(tmp_path)
    page = report._soak_part(_figures(run, verdict(run), 20.0))
    assert "| no answer is cut | yes | so it was |" in page
    assert "--minutes 20" in page
