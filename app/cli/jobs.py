"""``charloom jobs``: training jobs in the local database or on a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from ..errors import NotFound
from ..jobs.states import FINAL
from ..rendering.lists import PAGE_BOUND
from ..wiring.environment import read_settings
from . import console
from .job_sources import JobSource, job_source
from .options import AsJson, Url, within

app = typer.Typer(
    name="jobs",
    rich_markup_mode=None,
    help="List, watch and control training jobs. A server runs them: charloom serve.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

_LOOK_SECONDS: Final = 0.5
_LINE_SECONDS: Final = 10.0  # between lines, where there is no terminal

Id = Annotated[str, typer.Argument(help="A job's id.")]
Show = Callable[[dict[str, Any]], None]


@app.callback(invoke_without_command=True)
def jobs(context: typer.Context, url: Url = None) -> None:
    """List the newest jobs if no subcommand is given."""
    if context.invoked_subcommand is None:
        list_jobs(url=url)
    elif url is not None:
        raise typer.BadParameter("write --url after the subcommand.", param_hint="--url")


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="Only jobs in this state: running, queued, …")
    ] = None,
    limit: Annotated[int, within(PAGE_BOUND, "How many jobs.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    with job_source(url, read_settings()) as found:
        listed = found.listed(state=state, limit=limit)
    if as_json:
        console.write(json.dumps(listed, ensure_ascii=False, indent=2) + "\n")
        return
    if not listed:
        console.err.print(
            "There are no such jobs. Submit one: charloom train FILE --name NAME --detach."
        )
        return
    # A truncated id is useless.
    names = ("model", "state", "done", "left", "bits/char", "submitted")
    table = Table(Column("job", min_width=30), *names, box=None)
    for job in listed:
        table.add_row(*_row(job))
    console.show(table)


@app.command()
def show(id: Id, url: Url = None) -> None:
    """Show everything about a job, as JSON."""
    with job_source(url, read_settings()) as found:
        console.write(json.dumps(found.get(id), ensure_ascii=False, indent=2) + "\n")


@app.command()
def watch(
    id: Annotated[str | None, typer.Argument(help="A job's id; default: the newest.")] = None,
    url: Url = None,
) -> None:
    """Watch a job live until it ends; Ctrl-C stops only the watching."""
    with job_source(url, read_settings()) as found:
        followed = id or _newest(found)
        try:
            job = _watched(found, followed)
        except KeyboardInterrupt:
            console.err.print(f"The job continues. Watch it: charloom jobs watch {followed}")
            raise typer.Exit(130) from None
    if job["state"] != "succeeded":
        raise typer.Exit(1)
    console.out.print(f"published {job['model_version']}")


@app.command()
def cancel(id: Id, url: Url = None) -> None:
    """End a job without a model."""
    _steer(id, "cancel", url)


@app.command()
def pause(id: Id, url: Url = None) -> None:
    """Pause a job; it keeps its progress."""
    _steer(id, "pause", url)


@app.command()
def resume(id: Id, url: Url = None) -> None:
    """Resume a paused job."""
    _steer(id, "resume", url)


@app.command()
def delete(id: Id, url: Url = None) -> None:
    """Delete a finished job; its model stays."""
    with job_source(url, read_settings()) as found:
        found.delete(id)
    console.out.print(f"{id} is deleted")


def _newest(found: JobSource) -> str:
    listed = found.listed(state=None, limit=1)
    if not listed:
        raise NotFound("There is no job to watch.", code="job_not_found")
    return str(listed[0]["id"])


def _steer(id: str, verb: str, url: str | None) -> None:
    with job_source(url, read_settings()) as found:
        console.out.print(f"{id} is {found.steer(id, verb)['state']}")


def _watched(found: JobSource, id: str) -> dict[str, Any]:
    """Follow a job to its end and print its events as they happen."""
    last = 0
    with _display() as show:
        while True:
            job = found.get(id)  # first, so that the event that ended it is shown
            while events := found.events(id, last):
                for event in events:
                    _say(event)
                last = events[-1]["id"]
            show(job)
            if job["state"] in FINAL:
                return job
            time.sleep(_LOOK_SECONDS)


def _say(event: dict[str, Any]) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    style = {"warning": "yellow", "error": "red"}.get(event["level"])
    text = console.printable(f"{at}  {event['message']}")
    console.err.print(text, style=style if console.err.is_terminal else None, markup=False)


@contextmanager
def _display() -> Iterator[Show]:
    """A progress bar on a terminal, elsewhere a line now and then."""
    if not console.err.is_terminal:
        yield _plain()
        return
    with Live(console=console.err, refresh_per_second=8, transient=True) as live:

        def show(job: dict[str, Any]) -> None:
            row = Table.grid(padding=(0, 1))
            done = 100 * (job["progress"] or {"fraction": 0.0})["fraction"]
            row.add_row(ProgressBar(100, done, width=16), _state_line(job))
            live.update(row)

        yield show


def _plain() -> Show:
    last, before = -_LINE_SECONDS, ""

    def show(job: dict[str, Any]) -> None:
        nonlocal last, before
        line = _state_line(job)
        if line != before and time.monotonic() - last >= _LINE_SECONDS:
            last, before = time.monotonic(), line
            console.err.print(line, markup=False)

    return show


def _state_line(job: dict[str, Any]) -> str:
    progress = job["progress"]
    if progress is None:
        return str(job["state"])
    return (
        f"{job['state']}  {progress['fraction']:4.0%}  "
        f"{console.clock(progress['eta_seconds'])} left  "
        f"{progress['characters_per_second']:,.0f} characters/s  "
        f"{_number(progress['validation_bits_per_character'])} bits/char"
    )


def _row(job: dict[str, Any]) -> list[str]:
    progress = job["progress"] or {}
    over = job["state"] in FINAL
    return [
        job["id"],
        job["model_version"] or job["model"],
        job["state"],
        f"{progress['fraction']:.0%}" if progress else "-",
        "-" if over else console.clock(progress.get("eta_seconds")),
        _number(progress.get("validation_bits_per_character")),
        time.strftime("%m-%d %H:%M", time.localtime(job["created_at"])),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
