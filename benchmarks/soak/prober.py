"""``python -m benchmarks.soak.prober PORT FILE``: ask /livez every 100 ms until ended.

A process of its own, so that the load's clients do not delay it. One line a probe: the moment
on the monotonic clock, milliseconds, status or failure, and how late the probe itself began in
milliseconds. Kept and fresh connections take turns.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_EVERY: Final = 0.1
_PATIENCE: Final = 10.0


@dataclass(frozen=True)
class Probe:
    """One probe as it was written."""

    moment: float
    milliseconds: float
    said: str
    late: float


def main() -> None:
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    with suppress(OSError):
        os.nice(-10)  # only root may; else the load delays the probes too
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    due = time.monotonic()
    with path.open("w", buffering=1) as file:
        for number in range(1 << 62):
            due = max(due + _EVERY, time.monotonic())  # after a slow probe the next comes at once
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            connection = kept
            if number % 2:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
            said = _probe(connection, again=connection is kept)
            if connection is not kept:
                connection.close()
            taken = time.monotonic() - began
            file.write(f"{began:.3f} {1000 * taken:.1f} {said} {1000 * (began - due):.1f}\n")


def _probe(connection: http.client.HTTPConnection, *, again: bool) -> str:
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
        connection.close()
        # A server may close an idle connection at any moment; a client asks once more.
        return _probe(connection, again=False) if again else "reset"
    except ConnectionRefusedError:
        connection.close()
        return "refused"
    except TimeoutError:
        connection.close()
        return "timeout"
    except (OSError, http.client.HTTPException):
        connection.close()
        return "failed"


def probes(path: Path) -> list[Probe]:
    """Every complete probe of a file."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return [Probe(float(r[0]), float(r[1]), r[2], float(r[3])) for r in rows if len(r) == 4]


if __name__ == "__main__":
    main()
