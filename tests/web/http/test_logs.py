"""One event is one line, whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from app.web.http import logs

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


def written(style: str, *, failing: bool = False) -> str:
    """What an event whose text somebody else chose looks like."""
    logs.configure("info", style)
    lines = StringIO()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(lines)
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
