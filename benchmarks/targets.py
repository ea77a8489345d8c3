"""The targets and what was reached, as a table for ``RESULTS.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.loads import quantile

Row = tuple[str, str, str, str]
"""What is measured, its target, what was reached, whether the target was met."""


def rows(found: dict[str, Any]) -> Iterator[Row]:
    """Every target that was measured."""
    if "engine" in found:
        yield from _engine_rows(found["engine"])
    if "http" in found:
        yield from _http_rows(found["http"])
    for name, loss in found.get("quantization", {}).items():
        yield (
            f"quantization, {name}",
            "≤ 0.1 % more bits than float32",
            f"{100 * loss:+.3f} %",
            _said(loss <= 0.001),
        )
    if "soak" in found:
        soak = found["soak"]
        grown = soak["last"] / soak["settled"] - 1
        yield (
            f"memory, {soak['minutes']:.0f} minutes of mixed load, {soak['requests']:,} requests",
            "flat once it has settled",
            f"{soak['settled']:.0f} MB, then {soak['last']:.0f} MB ({100 * grown:+.1f} %)",
            _said(grown < 0.05) if soak["minutes"] >= 20 else "shorter than twenty minutes",
        )


def _engine_rows(engine: dict[str, Any]) -> Iterator[Row]:
    one = _measured(engine["lstm:2x512"], "writing", 1)
    yield _row("one stream, LSTM 2 × 512", "≥ 75 × the plain loop", one["times_plain"], 75, "×")
    yield _row(
        "", "≥ 60 % of the speed of reading the weights", 100 * one["share_of_floor"], 60, "%"
    )
    small = _measured(engine["lstm:2x128"], "writing", 1)
    yield _row("one stream, LSTM 2 × 128", "≥ 12 × the plain loop", small["times_plain"], 12, "×")
    yield _row("", "≥ 40,000 characters/s", small["engine"], 40_000, "/s")
    many = _measured(engine["lstm:2x512"], "writing", 64)
    yield _row("64 streams, LSTM 2 × 512", "≥ 5 × the plain loop", many["times_plain"], 5, "×")
    share = 100 * many["engine"] / many["arithmetic"]
    yield _row("", "≥ 50 % of the speed of int8 arithmetic", share, 50, "%")
    bulk = _measured(engine["lstm:2x512"], "scoring", 64)
    yield _row("bulk scoring, LSTM 2 × 512", "≥ 3 × padded batches", bulk["times_plain"], 3, "×")


def _http_rows(http: dict[str, Any]) -> Iterator[Row]:
    typed = min(http["typing"]["charloom"]) / min(http["typing"]["empty"])
    yield (
        "one character typed, whole request",
        "≤ 1.5 × an empty FastAPI endpoint",
        f"{typed:.1f} ×",
        _said(typed <= 1.5),
    )
    stream = http["one_stream"]
    share = 100 * stream["client"] / stream["engine"]
    yield _row("streaming, one client, LSTM 2 × 128", "≥ 70 % of the engine's rate", share, 70, "%")
    for key in ("2x128", "2x512"):
        late = 1000 * quantile(http[f"first_under_load_{key}"], 0.99)
        yield (
            f"first character beside 64 streams, prompt of 1,000, LSTM {key.replace('x', ' × ')}",
            "p99 < 60 ms",
            f"{late:.0f} ms",
            _said(late < 60),
        )


def _measured(results: list[dict[str, Any]], task: str, count: int) -> dict[str, Any]:
    return next(
        each
        for each in results
        if (each["task"], each["rows"], each["threads"]) == (task, count, 1)
    )


def _row(what: str, target: str, reached: float, least: float, unit: str) -> Row:
    shown = f"{reached:,.0f}" if reached >= 100 else f"{reached:.1f}"
    return what, target, f"{shown} {unit}", _said(reached >= least)


def _said(reached: bool) -> str:
    return "yes" if reached else "**no**"
