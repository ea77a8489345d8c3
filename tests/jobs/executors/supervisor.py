"""A second executor, shaped like a remote engine: ``python -m tests.jobs.executors.supervisor``.

A supervisor process runs the runners as its children and is spoken to over a
socket. Its references are its own business: nobody else can make anything of them.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import Any
from uuid import uuid4

import psutil

from app.errors import StorageFailed
from app.jobs.executors import Status
from app.jobs.executors.command import runner_command
from app.jobs.values import Claim


class SupervisedExecutor:
    """Asks a supervisor; see ``Executor``."""

    name = "supervised"

    def __init__(self, address: str) -> None:
        self._address = address

    def start(self, claim: Claim) -> str:
        return str(self._ask("start", *_parts(claim)))

    def find(self, claim: Claim) -> str | None:
        found = self._ask("find", *_parts(claim))
        return None if found is None else str(found)

    def status(self, reference: str) -> Status:
        return Status(self._ask("status", reference))

    def stop(self, reference: str, *, force: bool) -> None:
        self._ask("stop", reference, force)

    def exit_code(self, reference: str) -> int | None:
        code = self._ask("exit_code", reference)
        return None if code is None else int(code)

    def last_words(self, claim: Claim) -> str:
        return str(self._ask("last_words", *_parts(claim)))

    def tidy(self) -> None:
        return

    def _ask(self, verb: str, *arguments: Any) -> Any:
        try:
            with socket(AF_UNIX, SOCK_STREAM) as connection:
                connection.connect(self._address)
                connection.sendall(json.dumps([verb, *arguments]).encode() + b"\n")
                with connection.makefile("rb") as answer:
                    return json.loads(answer.readline())
        except (OSError, ValueError) as error:  # ValueError: it died in the middle of its answer
            raise StorageFailed("The supervisor does not answer.") from error


def _parts(claim: Claim) -> tuple[str, int, int]:
    return claim.job_id, claim.number, claim.token


@dataclass
class _Child:
    claim: Claim
    process: subprocess.Popen[bytes]
    log: Path


class Supervisor:
    """The runners of one supervisor, by references that it makes up."""

    def __init__(self, folder: Path) -> None:
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()
        self._folder = folder

    def start(self, *parts: Any) -> str:
        claim, reference = Claim(*parts), uuid4().hex
        log = self._folder / reference
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, *runner_command(claim)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        with self._lock:
            self._children[reference] = _Child(claim, process, log)
        return reference

    def find(self, *parts: Any) -> str | None:
        with self._lock:
            known = {child.claim: reference for reference, child in self._children.items()}
        return known.get(Claim(*parts))

    def status(self, reference: str) -> str:
        child = self._children.get(reference)
        if child is None:
            return Status.UNKNOWN
        if child.process.poll() is not None:
            return Status.GONE
        with suppress(psutil.Error):
            if psutil.Process(child.process.pid).status() == psutil.STATUS_STOPPED:
                return Status.STOPPED
        return Status.ALIVE

    def stop(self, reference: str, force: bool) -> None:
        child = self._children.get(reference)
        if child is not None and child.process.poll() is None:
            os.killpg(child.process.pid, signal.SIGKILL if force else signal.SIGTERM)

    def exit_code(self, reference: str) -> int | None:
        child = self._children.get(reference)
        return None if child is None else child.process.poll()

    def last_words(self, *parts: Any) -> str:
        reference = self.find(*parts)
        return (
            "" if reference is None else self._children[reference].log.read_text()[-8000:].strip()
        )


def main(address: str) -> None:
    """Supervise until killed."""
    supervisor = Supervisor(Path(address).parent)

    class Door(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            verb, *arguments = json.loads(self.rfile.readline())
            self.wfile.write(json.dumps(getattr(supervisor, verb)(*arguments)).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(address, Door) as listening:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        listening.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
