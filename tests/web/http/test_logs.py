"""One event is one line, whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from fastapi.testclient import TestClient

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
