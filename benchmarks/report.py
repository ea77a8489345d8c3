"""Write the results as ``RESULTS.md``, with charts as small SVG files.

Takes what ``python -m benchmarks`` stored in ``results.json``. JSON keys are strings,
so the levels of a load are strings here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from benchmarks import targets
from benchmarks.fleet import SERVERS, TITLES
from benchmarks.loads import quantile

_COLOURS: Final = {
    "charloom": "#b4472e",
    "plain": "#8a8a8a",
    "onnx_runtime": "#4c72b0",
    "lit": "#55a868",
}

_MISSED: Final = """What limits the figures that miss their target (AMD EPYC, Zen 4):

- One stream of LSTM 2 × 512, where it is below 75 ×: the limit is reading 3.2 MB of weights per
  character from the third-level cache. The ratio says as much about the plain loop: its rate for
  one row was 163 characters per second in one measurement and 283 in another, on the same machine
  within two hours (133 × and 75 ×).
- A typed character: nearly all of the time is spent in Python. Of 0.75 ms, an empty endpoint takes
  0.26 ms; the first tick, done in the caller's thread, 0.17 ms (0.03 ms of it in the network
  itself); reading and checking the body 0.05 ms; prompt, ids and names 0.07 ms; the answer
  0.03 ms. The rest is routing, headers, counters and the log line. Every part was measured in the
  server, where cold caches make it two to three times as slow as in a loop. The next steps would
  be a dedicated row for single texts in the decoder, and a route that bypasses FastAPI's layers.
- A prompt of 1,000 characters takes LSTM 2 × 512 about 35 ms alone, one step after another. Beside
  64 streams it gets three quarters of each tick, and the server's only core here also sends the
  64 streams. A second core for the event loop would help most."""


def write(found: dict[str, Any], folder: Path) -> None:
    """Write the page and the charts that it shows."""
    found = _with_text_keys(found)
    parts = [
        _introduction(found["machine"]),
        "## Targets\n\n"
        + _table(("what", "target", "reached", "met"), targets.rows(found))
        + "\n\n"
        + _MISSED,
    ]
    if "engine" in found:
        parts += [_engine_part(found["engine"])]
    if "http" in found:
        parts += [_http_part(found["http"]), _single_part(found["http"])]
        _charts(found["http"], folder)
    if "jobs" in found:
        parts += [_jobs_part(found["jobs"])]
    if "criteria" in found.get("soak", {}):  # runs of before there were criteria lack them
        parts += [_soak_part(found["soak"])]
    (folder / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(each) for key, each in value.items()}
    return value


def _introduction(machine: dict[str, Any]) -> str:
    return f"""# Benchmark results

{_where(machine)}; load average at the start {machine["load"][0]}. Everything here is produced by

```
pip install -r benchmarks/requirements.txt
python -m benchmarks
```

or `make benchmarks`. Networks are untrained, because speed does not depend on training. They
have 98 symbols over HTTP and 100 in process. Charloom serves them in int8; the others serve
them in float32, because they do not offer int8. Figures are medians of several rounds, in
which the programs compared take turns."""


def _where(machine: dict[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {machine['date']}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _engine_part(engine: dict[str, list[dict[str, Any]]]) -> str:
    parts = [
        "## The engine, in process\n\n`charloom bench --shape lstm:2x512 --threads 1,2`. "
        "Figures are characters per second; the engine's include sampling and logprobs. The plain "
        "loop is what most people write first: for writing, `nn.Embedding`, `nn.LSTM`, "
        "`nn.Linear`, softmax and multinomial; for scoring, padded batches and log-softmax. Scored "
        "records have 20 to 200 characters. The floor is the tighter of two measured bounds: "
        "reading the weights once per step, or the int8 multiplications at the processor's own "
        "rate. With two threads the plain loop's figure is the better of its one-thread and "
        "two-thread rates, because it collapses when something else runs on one of the cores."
    ]
    for shape, results in engine.items():
        rows = [
            (
                each["task"],
                str(each["rows"]),
                str(each["threads"]),
                f"{each['engine']:,.0f}",
                f"{_plain(each, results):,.0f}",
                f"**{each['engine'] / _plain(each, results):.1f} ×**",
                f"{each['share_of_floor']:.0%}",
            )
            for each in results
        ]
        head = ("", "rows", "threads", "engine", "plain loop", "times", "of the floor")
        parts.append(f"### {shape}\n\n" + _table(head, rows))
    return "\n\n".join(parts)


def _plain(figure: dict[str, Any], results: list[dict[str, Any]]) -> float:
    """The plain loop's best rate with at most as many threads."""
    return max(
        float(each["plain"])
        for each in results
        if (each["task"], each["rows"]) == (figure["task"], figure["rows"])
        and each["threads"] <= figure["threads"]
    )


def _http_part(http: dict[str, Any]) -> str:
    parts = [
        "## Over HTTP\n\nEvery server runs on one core with one thread; a raw asyncio client uses "
        "the other core. Every request streams. Prompts have 50 characters; prompts and seeds "
        "differ from request to request."
    ]
    for key, by_server in http["closed"].items():
        parts.append(
            f"### Closed loop, LSTM {key.replace('x', ' × ')}\n\nEach client requests 200 "
            "characters, reads them and requests again. Times are in milliseconds.\n\n"
            f"![characters per second by number of clients](closed-{key}.svg)\n\n"
            + _levels("clients", by_server)
        )
    for key, by_server in http["poisson"].items():
        parts.append(
            f"### Poisson arrivals, LSTM {key.replace('x', ' × ')}\n\nRequests for 64 characters "
            "arrive at random, at a given mean rate, whatever the server does. A request that has "
            "received nothing one second after the last arrival counts with the time it has "
            "waited.\n\n"
            f"![time to first character](poisson-{key}.svg)\n\n"
            + _levels("requests per second", by_server)
        )
    return "\n\n".join(parts)


def _levels(what: str, by_server: dict[str, Any]) -> str:
    head = ("server", what, "characters/s", "per stream", "first p50", "first p99", "gap p50",
            "gap p99", "failed")  # fmt: skip
    rows = []
    for name in SERVERS:
        for level, seen in by_server[name].items():
            times = ("first_p50", "first_p99", "gap_p50", "gap_p99")
            rows.append(
                (
                    TITLES[name],
                    level,
                    _number(seen["characters_per_second"]),
                    _number(seen["per_stream"]),
                    *(_milliseconds(seen[each]) for each in times),
                    f"{seen['failed']:.0f}",
                )
            )
    return _table(head, rows)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"


def _milliseconds(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{1000 * seconds:,.1f}"


def _single_part(http: dict[str, Any]) -> str:
    typed = {name: min(taken) for name, taken in http["typing"].items()}
    stream = http["one_stream"]
    rows = [
        (
            "one character typed, whole request, median",
            f"{1000 * typed['charloom']:.2f} ms; an empty FastAPI endpoint "
            f"{1000 * typed['empty']:.2f} ms ({typed['charloom'] / typed['empty']:.2f} ×)",
        ),
        (
            "one client streaming 100,000 characters, LSTM 2 × 128",
            f"{stream['client']:,.0f} characters/s, {stream['client'] / stream['engine']:.0%} of "
            f"the engine's own {stream['engine']:,.0f}",
        ),
    ]
    for key in ("2x128", "2x512"):
        taken = http[f"first_under_load_{key}"]
        rows.append(
            (
                f"first character, prompt of 1,000, beside 64 streams, LSTM {key}",
                f"p50 {1000 * quantile(taken, 0.5):.0f} ms, p99 {1000 * quantile(taken, 0.99):.0f} "
                f"ms ({len(taken)} requests)",
            )
        )
    return "## Single figures over HTTP\n\n" + _table(("what", "measured"), rows)


_PARTS: Final = {
    "claims": "claiming, four processes at once",
    "points": "metric points written",
    "charts": "a chart of 2,500 points read as 1,000 buckets",
    "overhead": "a job compared with the bare training loop",
    "first": "from submitting to the first metric",
    "beside": "completions beside a training job",
    "kills": "runners and servers killed at random moments",
}


def _jobs_part(jobs: dict[str, Any]) -> str:
    rows = [
        (what, kind, told) for part, what in _PARTS.items() for kind, told in jobs[part].items()
    ]
    return (
        f"## Training jobs\n\n`python -m benchmarks.jobs`, {_where(jobs['machine'])}.\n\n"
        + _table(("what", "database", "measured"), rows)
    )


def _soak_part(soak: dict[str, Any]) -> str:
    rows = [
        (name, "yes" if met else "**no**", seen.replace("|", "/"))
        for name, met, seen in soak["criteria"]
    ]
    return (
        f"## Everything at once\n\n`python -m benchmarks.soak --minutes {soak['minutes']:.0f}`: "
        "writing, scoring, ranking, bulk scoring, models loaded and dropped, imported and "
        "deleted, aliases that move, datasets, readers that stall, silent connections, hostile "
        f"bodies and clients that leave, with SIGTERM and start; {soak['requests']:,} answers and "
        "failures were counted. `soak.tsv` has a line for each second.\n\n"
        "![memory, threads and descriptors](soak.svg)\n\n"
        + _table(("criterion", "met", "seen"), rows)
    )


def _charts(http: dict[str, Any], folder: Path) -> None:
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "charloom", "font.size": 10})
    for key, by_server in http["closed"].items():
        _chart(by_server, "characters_per_second", 1, folder / f"closed-{key}.svg",
               f"LSTM {key.replace('x', ' × ')}, one core: characters per second",
               "clients")  # fmt: skip
    for key, by_server in http["poisson"].items():
        _chart(by_server, "first_p50", 1000, folder / f"poisson-{key}.svg",
               f"LSTM {key.replace('x', ' × ')}, one core: median ms to the first character",
               "requests per second")  # fmt: skip


def _chart(
    by_server: dict[str, Any], what: str, times: float, path: Path, title: str, across: str
) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for name in SERVERS:
        levels = by_server[name]
        axes.plot(
            [int(level) for level in levels],
            [times * seen[what] for seen in levels.values()],
            marker="o",
            label=TITLES[name],
            color=_COLOURS[name],
            linewidth=2.5 if name == "charloom" else 1.5,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([int(level) for level in by_server["charloom"]])
    axes.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.get_yaxis().set_major_formatter(matplotlib.ticker.FuncFormatter(lambda y, _: f"{y:,g}"))
    axes.set_xlabel(across)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # Beside the curves: inside, the legend would cover one of them.
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
