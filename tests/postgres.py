"""A real PostgreSQL for the tests: a temporary cluster on a free loopback port.

``CHARLOOM_TEST_POSTGRES_URL`` names one that runs already (its user must be
allowed to make databases). Without either, the tests fail: a database that we
promise to support is not optional.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url

from app.database.tables import new_ulid

VARIABLE = "CHARLOOM_TEST_POSTGRES_URL"
_MISSING = (
    "The tests need PostgreSQL's server programs (initdb, pg_ctl), 15 or newer. On Debian: "
    f"apt-get install postgresql. Or set {VARIABLE} to a server that runs."
)


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server; one started here is gone after."""
    given = os.environ.get(VARIABLE)
    if given:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="charloom-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, user=_owner())
    try:
        port = _free_port()
        _run("initdb", "-D", f"{folder}/pg", "-U", "charloom", "-A", "trust", "-E", "UTF8", "-N")
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} "
            "-c fsync=off -c full_page_writes=off -c shared_buffers=16MB"
        )
        _run("pg_ctl", "-D", f"{folder}/pg", "-l", f"{folder}/log", "-w", "start", "-o", options)
        try:
            yield f"postgresql://charloom@127.0.0.1:{port}/postgres"
        finally:
            _run("pg_ctl", "-D", f"{folder}/pg", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """The URL of a new database on that server; dropped after."""
    name = f"charloom_test_{new_ulid().lower()}"
    url = make_url(server_url).set(drivername="postgresql+psycopg")
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        _execute(admin, f"CREATE DATABASE {name}")
        yield url.set(database=name).render_as_string(hide_password=False)
        _execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        admin.dispose()


def _execute(engine: Engine, statement: str) -> None:
    with engine.connect() as connection:
        connection.execute(text(statement))


def _run(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs, which refuse to be run by root."""
    command = [_program(program), *arguments]
    if os.geteuid() == 0:
        command = ["runuser", "-u", _owner(), "--", *command]
    done = subprocess.run(
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # not a pipe: the server would keep it open
        stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
        check=False,
        timeout=120,
    )
    if done.returncode:
        pytest.fail(f"{program} failed: {(done.stderr or b'').decode()[-2000:]}", pytrace=False)


def _program(name: str) -> str:
    versions = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
        key=lambda path: int(path.parts[-3]) if path.parts[-3].isdecimal() else 0,
    )
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        pytest.fail(_MISSING, pytrace=False)
    return found


def _owner() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.fail(_MISSING, pytrace=False)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
