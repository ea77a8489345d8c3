"""Log lines for people or programs: one event, one line, whatever it contains."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

#: ``extra={FIELDS: {…}}`` gives a line fields of its own where lines are for programs.
FIELDS: Final = "fields"
#: ``extra={SAME: what}``: a line that says this again is left out for a minute.
SAME: Final = "same"
_MINUTE: Final = 60.0
_MOST_REMEMBERED: Final = 1_000
_MOST_CHARACTERS: Final = 10_000


class Repeats(logging.Filter):
    """Lets a line with the same ``SAME`` through once a minute, and counts the others.

    The next one that passes says how many were left out. Lines without it all pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        same = getattr(record, SAME, None)
        if same is None:
            return True
        key, now = (record.name, str(same)), self._clock()
        with self._lock:
            at, left_out = self._said.pop(key, (-math.inf, 0))
            if now - at < _MINUTE:
                self._said[key] = at, left_out + 1
                return False
            self._said[key] = now, 0
            while len(self._said) > _MOST_REMEMBERED:
                del self._said[next(iter(self._said))]
        if left_out:
            more = f" (and {left_out:,} more like it in the {now - at:.0f} s before)"
            record.msg, record.args = record.getMessage() + more, ()
        return True


class _Line(logging.Formatter):
    """Escapes control characters, so that one event cannot look like two."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        first, _, trace = text.partition("\n")
        lines = [first, *trace.splitlines()] if record.exc_info else [text]
        return "\n    ".join(_printable(line)[:_MOST_CHARACTERS] for line in lines)


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MOST_CHARACTERS],
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)[-_MOST_CHARACTERS:]
        return json.dumps(fields)


def configure(level: str, style: str) -> None:
    """Send this process's log to standard error, as ``text`` or ``json``."""
    lines = logging.StreamHandler()
    text = _Line("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    lines.setFormatter(_JsonLine() if style == "json" else text)
    lines.addFilter(Repeats())
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)
    # None of our formats shows these, so do not look them up for every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Uvicorn's own lines go the same way; request lines are ours (see traffic).
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
