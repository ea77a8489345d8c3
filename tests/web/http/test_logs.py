"""One event is one line, whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from fastapi.testclient import TestClient

from app.errors import StorageFailed
from app.main import create_app
from app.settings import Settings
from app.web.http import logs

OURS = ("charloom.requests", "app.web.http.middleware")
NASTY = "a\r\nINFO forged\x1b[31m\u202e\u2028b"


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Put the process's logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False


def to_memory() -> StringIO:
    """Where the lines go from here on."""
    lines = StringIO()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(lines)
    return lines


def written(style: str, *, failing: bool = False) -> str:
    """What an event whose text somebody else chose looks like."""
    logs.configure("info", style)
    lines = to_memory()
    try:
        raise ValueError(NASTY)
    except ValueError as error:
        logging.getLogger("charloom.test").error("%s", NASTY, exc_info=error if failing else None)
    return lines.getvalue()


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_event_is_one_line(style: str) -> None:
    line = written(style)
    assert line.endswith("b\n" if style == "text" else "}\n")
    assert line.rstrip("\n").isprintable()


def test_a_trace_is_indented_under_its_event() -> None:
    first, *rest = written("text", failing=True).rstrip("\n").split("\n")
    assert "ERROR" in first
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_programs_get_the_text_as_it_was() -> None:
    event = json.loads(written("json", failing=True))
    assert event["message"] == NASTY
    assert event["level"] == "error"
    assert event["trace"].endswith(f"ValueError: {NASTY}")


def test_a_line_has_an_end() -> None:
    logs.configure("info", "text")
    (handler,) = logging.getLogger().handlers
    record = logging.makeLogRecord({"msg": "x" * 100_000, "levelname": "INFO"})
    assert len(handler.format(record)) <= 10_000


def test_a_request_has_fields_of_its_own(settings: Settings) -> None:
    app = create_app(settings)
    app.state.lifecycle.serving = True  # without its start

    @app.get("/broken/{name}")
    async def broken(name: str) -> None:
        raise ZeroDivisionError

    logs.configure("info", "json")
    lines = to_memory()
    client = TestClient(app, headers={"x-request-id": "mine-1"})
    client.get("/broken/secret?x=1")
    client.get("/nowhere")
    events = map(json.loads, lines.getvalue().splitlines())
    failed, asked, lost = [event for event in events if event["logger"] in OURS]
    assert failed["request_id"] == "mine-1"
    assert failed["trace"].endswith("ZeroDivisionError")
    fields = {name: asked[name] for name in ("request_id", "method", "route", "status")}
    assert fields == {
        "request_id": "mine-1", "method": "GET", "route": "/broken/{name}", "status": 500,
    }  # fmt: skip
    assert asked["ms"] >= 0
    assert (lost["route"], lost["status"]) == (None, 404)
    assert "secret" not in json.dumps(asked)


def test_people_read_a_request_on_one_line(settings: Settings) -> None:
    logs.configure("info", "text")
    lines = to_memory()
    TestClient(create_app(settings), headers={"x-request-id": "mine-1"}).get("/livez")
    (asked,) = [line for line in lines.getvalue().splitlines() if "HTTP Request" not in line]
    assert asked.split()[1:5] == ["INFO", "GET", "/livez", "200"]
    assert asked.endswith("[mine-1]")


def test_the_same_error_is_said_once_a_minute_with_a_count() -> None:
    now = 0.0
    repeats = logs.Repeats(clock=lambda: now)
    said: list[str] = []

    def say(same: str | None, text: str, *arguments: object) -> None:
        fields = {"name": "x", "msg": text, "args": arguments, logs.SAME: same}
        record = logging.makeLogRecord({k: v for k, v in fields.items() if v is not None})
        if repeats.filter(record):
            said.append(record.getMessage())

    for number in range(60):
        now = float(number)
        say("full", "request %d: the disk is full", number)
        say(None, "served")
    assert said.count("served") == 60
    now = 60.0
    say("full", "request %d: the disk is full", 60)
    say("locked", "the database is locked")
    assert [each for each in said if each != "served"] == [
        "request 0: the disk is full",
        "request 60: the disk is full (and 59 more like it in the 60 s before)",
        "the database is locked",
    ]
    for number in range(5_000):  # as many causes as somebody can think of
        say(f"cause {number}", "another")
    assert len(repeats._said) <= 1_000


def test_a_refused_write_is_a_line_without_a_trace(settings: Settings) -> None:
    app = create_app(settings)
    app.state.lifecycle.serving = True  # without its start

    @app.get("/refused")
    async def refused() -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise StorageFailed("The disk is full; make room.") from error

    logs.configure("warning", "text")
    lines = to_memory()
    client = TestClient(app)
    for number in range(20):
        answer = client.get("/refused", headers={"x-request-id": f"mine-{number}"})
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == "The disk is full; make room."
    (line,) = lines.getvalue().splitlines()
    assert "request mine-0 failed: The disk is full; make room. (OSError: [Errno 28]" in line
