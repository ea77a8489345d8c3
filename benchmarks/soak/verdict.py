"""One line for each criterion of the run: what was wanted, what was seen, whether it is met."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.loads import quantile
from benchmarks.soak.prober import Probe
from benchmarks.soak.process import Life, Server
from benchmarks.soak.samples import Flatness, Sample
from benchmarks.soak.tally import CUT, REFUSED, RESET, TIMEOUT, Tally

_PAGE: Final = Path(__file__).parents[2] / "docs" / "http.md"
_SLOWEST: Final = 100.0  # milliseconds
_END_SECONDS: Final = 30.0  # 20 s for requests in progress, and what follows
_LONG_ENOUGH: Final = 300.0  # seconds of a process whose flatness can be judged
_ENDED: Final = (0, -15, 143)
_SHOWN: Final = 8
_MEGABYTES: Final = ("complete large", "score")
"""Their JSON may be cut while the server ends: it has no form for an error (docs/http.md)."""


@dataclass(frozen=True)
class Criterion:
    name: str
    met: bool
    seen: str

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'FAILED'}  {self.name}: {self.seen}"


@dataclass(frozen=True)
class Run:
    """Everything that was observed."""

    server: Server
    tally: Tally
    probes: Sequence[Probe]
    samples: Sequence[Sample]
    polite: frozenset[str]
    workloads: frozenset[str]


def verdict(run: Run) -> list[Criterion]:
    """Every criterion."""
    return [
        _livez(run),
        _documented(run.tally),
        *_transport(run),
        _of("no traceback is logged", run.server.tracebacks()),
        _of("the server ends when it is told to", list(map(_badly_ended, run.server.lives))),
        *_flat(run.samples),
        _of("the clients themselves do not fail", _of_clients(run.tally)),
        _of("every workload gets answers", _without_answers(run)),
    ]


def _of(name: str, faults: Iterable[str]) -> Criterion:
    """Met if there are no faults; empty strings do not count."""
    found = [each for each in faults if each]
    shown = "; ".join(found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return Criterion(name, not found, f"{len(found)}: {shown}{more}" if found else "so it was")


def _livez(run: Run) -> Criterion:
    """Refused counts only while somebody must listen, and so does a connection that is reset."""
    asked = [
        each
        for each in run.probes
        if each.said in ("200", "503") or not run.server.away(each.moment)
    ]
    slow = [each for each in asked if each.milliseconds > _SLOWEST]
    wrong = [each for each in asked if each.said != "200"]
    times = [each.milliseconds for each in asked]
    said = ", ".join(sorted({each.said for each in wrong})) or "none"
    phases = Counter(run.server.phase(each.moment) for each in slow)
    when = "".join(f", {count} while {phase}" for phase, count in sorted(phases.items()))
    late = max((each.late for each in run.probes), default=0.0)
    seen = (
        f"{len(asked):,} probes, p50 {quantile(times, 0.5):.1f} ms, "
        f"p99 {quantile(times, 0.99):.1f} ms, slowest {max(times, default=0):.0f} ms; "
        f"{len(slow)} slower{when}; {len(wrong)} not 200 ({said}); the prober itself was late by "
        f"at most {late:.0f} ms"
    )
    return Criterion(f"/livez within {_SLOWEST:.0f} ms", bool(asked) and not (slow or wrong), seen)


def documented_codes(status: str) -> set[str]:
    """The codes that docs/http.md lists for a status."""
    row = re.findall(rf"^\| {status} \| (`.*) \|$", _PAGE.read_text(), re.M)[-1]
    return set(re.findall(r"`(\w+)`", row))


def _documented(tally: Tally) -> Criterion:
    """503 may have its codes; an error within an answer also those of 400, 413 and 415."""
    busy = documented_codes("503")
    within = busy | set().union(*map(documented_codes, ("400", "413", "415")))
    return _of(
        "no 5xx but what is documented",
        (
            f"{count} × {workload} {status} {code}"
            for (workload, status, code), count in sorted(tally.counts.items())
            if (re.fullmatch(r"5\d\d", status) and not (status == "503" and code in busy))
            or (status in ("event", "line") and code not in within)
        ),
    )


def _transport(run: Run) -> Iterator[Criterion]:
    """Cut answers, late answers, and connections without an answer while a server was there."""
    names = {CUT: "no answer is cut", TIMEOUT: "no request hangs"}
    for kind, name in names.items():
        yield _of(name, _failures(run, kind, lambda _: True))
    here = {RESET: "no request goes without an answer", REFUSED: "nobody is refused a connection"}
    for kind, name in here.items():
        yield _of(name, _failures(run, kind, lambda moment: not run.server.away(moment)))


def _failures(run: Run, kind: str, counts: object) -> Iterator[str]:
    assert callable(counts)
    for (workload, seen), moments in sorted(run.tally.moments.items()):
        bad = [moment for moment in moments if counts(moment)]
        if seen == CUT and workload in _MEGABYTES:
            bad = [moment for moment in bad if not run.server.ending(moment)]
        if seen == kind and bad and (workload in run.polite or kind == REFUSED):
            ending = sum(map(run.server.ending, bad))
            yield f"{len(bad)} × {workload}" + (f" ({ending} while ending)" if ending else "")


def _badly_ended(life: Life) -> str:
    """What was wrong with the end of a process; empty if nothing was."""
    if life.ready is None:
        return f"process {life.pid} was never ready"
    if life.killed or not life.end_seconds <= _END_SECONDS:
        how = " and was killed" if life.killed else ""
        return f"process {life.pid} took {life.end_seconds:.0f} s{how}"
    return "" if life.exit_code in _ENDED else f"process {life.pid} ended with {life.exit_code}"


def _flat(samples: Sequence[Sample]) -> Iterator[Criterion]:
    """For every process that lived long enough: the last quarter against the second one."""
    long = [
        own
        for process in sorted({each.process for each in samples})
        if (own := [each for each in samples if each.process == process])[-1].seconds
        - own[0].seconds
        >= _LONG_ENOUGH
    ]
    # Allowed beside 10 %: what a moment's load may add.
    for name, unit, spare in (
        ("megabytes", "MB", 20),
        ("threads", "", 4),
        ("descriptors", "", 700),  # a crowd of 600, which comes when it comes
    ):
        told, met = [], True
        for own in long:
            flat = Flatness.of([s.seconds for s in own], [float(getattr(s, name)) for s in own])
            half = (own[-1].seconds - own[0].seconds) / 120  # minutes
            allowed = 0.1 * flat.second_quarter + spare
            met = met and flat.last_quarter - flat.second_quarter <= allowed
            met = met and flat.slope * half <= allowed
            told.append(
                f"process {own[0].process}: at most {flat.second_quarter:.0f} {unit} in its second "
                f"quarter, {flat.last_quarter:.0f} {unit} in its last, {flat.slope:+.1f} {unit} a "
                "minute over its second half".replace("  ", " ")
            )
        if not told:
            told = [f"not judged: no process lived for {_LONG_ENOUGH:.0f} s"]
        yield Criterion(f"{name} flat", met, "; ".join(told))


def _of_clients(tally: Tally) -> list[str]:
    return [
        f"{count} × {workload}: {kind}"
        for (workload, kind, _), count in sorted(tally.counts.items())
        if kind.startswith("client")
    ]


def _without_answers(run: Run) -> list[str]:
    failures = {CUT, RESET, REFUSED, TIMEOUT}
    answered = {
        workload
        for workload, status, _ in run.tally.counts
        if status not in failures and not status.startswith(("5", "client"))
    }
    return sorted(run.workloads - answered)
