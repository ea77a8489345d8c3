"""A database, SQLite or PostgreSQL: its connections, its transactions, its migration.

Takes a SQLAlchemy URL; gives sessions, each exactly one transaction. Knows no table.
Database errors that may pass become ``Overloaded`` (locked, unavailable); those that someone
must fix become ``StorageFailed`` (full, read-only). A violated constraint stays SQLAlchemy's
IntegrityError for the caller to interpret.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InternalError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from ..errors import CharloomError, InvalidInput, Overloaded, StorageFailed
from .file import DatabaseFile
from .tables import REVISION

# Before this version, WAL with several writing processes can corrupt the file (a checkpoint race).
SAFE_WAL: Final = (3, 51, 3)

_READ_ONLY: Final = "charloom_read_only"
_BUSY_SECONDS: Final = 10.0  # how long a transaction waits for a SQLite file that is locked
_HURRIED_SECONDS: Final = 1.0


class Database:
    """One database and its connection pool; safe to share between threads.

    Raises InvalidInput for a URL of neither SQLite nor PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        self._file = _sqlite_file(url)
        self.engine = _connect(url, self._file)
        self._hurried_engine = _connect(url, self._file, hurried=True)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._read_only_sessions = _read_only(self.engine)
        self._hurried_sessions = _read_only(self._hurried_engine)

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises.

        On SQLite a transaction that may write takes the write lock at once
        (``BEGIN IMMEDIATE``): it waits for the lock at the start, where no work is
        lost, and cannot fail half-way for lack of it. Keep it short.

        Raises Overloaded, StorageFailed.
        """
        sessions = self._read_only_sessions if read_only else self._sessions
        with explained(), sessions.begin() as session:
            yield session

    @contextmanager
    def hurried(self) -> Iterator[Session]:
        """A transaction that only reads, on the one connection that is kept for it.

        For health checks and metrics: it waits a second where others wait for ten, and not
        behind them. Raises Overloaded, StorageFailed.
        """
        with explained(), self._hurried_sessions.begin() as session:
            yield session

    def migrate(self) -> None:
        """Upgrade the tables to those of this code, one server at a time.

        Raises Conflict when the database is newer than this code or belongs to another program.
        """
        if self._revision() == REVISION:
            return
        # Only needed when the tables change; importing Alembic takes a quarter of a second.
        from .migration import migrate

        with explained():
            migrate(self.engine)

    def _revision(self) -> str | None:
        """The revision of the tables; None if it cannot be read, as in a new database."""
        try:
            with self._read_only_sessions.begin() as session:
                found: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
                return found
        except (DBAPIError, PoolTimeout):
            return None

    def check_writing(self) -> None:
        """Write without changing anything; raises StorageFailed if the database refuses.

        SQLite opens a file on a read-only disk and begins transactions without an error.
        """
        with self.session() as session:
            session.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def ping(self) -> None:
        """Run a query; raises Overloaded or StorageFailed if the database does not answer.

        Also if a SQLite file or its folder was moved, replaced or made read-only.
        """
        # SQLite answers SELECT 1 without reading its file.
        anything = "SELECT count(*) FROM sqlite_master" if self._is_sqlite else "SELECT 1"
        with self.hurried() as session:
            session.execute(text(anything))
        if self._file is not None:
            self._file.check_writable()

    def describe(self) -> str:
        """The database, its version and journal mode, for people."""
        if not self._is_sqlite:
            with explained(), self.engine.connect() as connection:
                version = connection.execute(text("SHOW server_version")).scalar_one()
            return f"PostgreSQL {version}"
        mode = journal_mode(sqlite3.sqlite_version_info)
        why = "" if mode == "WAL" else " (WAL is safe from SQLite 3.51.3 on)"
        return f"SQLite {sqlite3.sqlite_version}, journal mode {mode}{why}"

    @property
    def _is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        self._hurried_engine.dispose()


def journal_mode(sqlite_version: tuple[int, ...]) -> str:
    """WAL where it is safe, else DELETE."""
    return "WAL" if sqlite_version >= SAFE_WAL else "DELETE"


def _sqlite_file(url: str) -> DatabaseFile | None:
    """The file of a SQLite database; None for PostgreSQL. Raises InvalidInput for anything else."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            return None
    except (ArgumentError, ValueError) as error:
        raise _wrong_url() from error
    # Only a plain file: another driver or an option could make it a database in memory, or
    # bypass what is set up below.
    plain = parsed.drivername in ("sqlite", "sqlite+pysqlite") and not parsed.query
    file = parsed.database
    if not plain or not file or file == ":memory:" or "\0" in file:
        raise _wrong_url()
    _make_folder(Path(file).parent)
    return DatabaseFile(Path(file))


def _connect(url: str, file: DatabaseFile | None, *, hurried: bool = False) -> Engine:
    """An engine; a ``hurried`` one has one connection, and gives up early."""
    pool = {"pool_size": 1, "max_overflow": 0, "pool_timeout": _HURRIED_SECONDS} if hurried else {}
    if file is None:
        # pool_pre_ping replaces a connection that the server has dropped before it is used.
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        pool = {"pool_timeout": 10.0, **pool}
        alive = {name: value for name, value in _ALIVE.items() if name not in parsed.query}
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=alive, **pool)
        if hurried:
            event.listen(engine, "begin", _hurry_postgres)
        return engine
    engine = create_engine(url, json_deserializer=_json, **pool)
    busy = _HURRIED_SECONDS if hurried else _BUSY_SECONDS

    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        _prepare_sqlite(connection, busy)
        file.opened()

    def begin(connection: Connection) -> None:
        file.check()
        _begin_sqlite(connection)

    # Before connecting: SQLite would make a new file where ours is gone.
    event.listen(engine, "do_connect", lambda *_: file.check())
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


#: Without these a server that vanishes holds a connection for many minutes; see PostgreSQL's
#: documentation of libpq.
_ALIVE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def _read_only(engine: Engine) -> sessionmaker[Session]:
    options = engine.execution_options(postgresql_readonly=True, **{_READ_ONLY: True})
    return sessionmaker(options, expire_on_commit=False)


def _json(text: str) -> Any:
    """A JSON column's value; None if it is damaged, so that the other rows can be read."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _wrong_url() -> InvalidInput:
    return InvalidInput(
        "CHARLOOM_DATABASE_URL must be sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
        param="database_url",
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"The folder of the database cannot be created ({error.strerror}). "
            "CHARLOOM_DATA_DIR says where it is."
        ) from error


def _prepare_sqlite(connection: sqlite3.Connection, busy_seconds: float) -> None:
    # None: the driver begins no transaction by itself; _begin_sqlite does.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={busy_seconds * 1000:.0f}")
    wanted = journal_mode(sqlite3.sqlite_version_info)
    (current,) = connection.execute("PRAGMA journal_mode").fetchone()
    if current.upper() != wanted:
        connection.execute(f"PRAGMA journal_mode={wanted}")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    deferred = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def _hurry_postgres(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {_HURRIED_SECONDS * 1000:.0f}")


@contextmanager
def explained() -> Iterator[None]:
    """Translate database errors into ours, with a message for people."""
    try:
        yield
    except PoolTimeout as error:
        raise _no_answer() from error
    except DBAPIError as error:
        explanation = _explanation(error)
        if explanation is None:
            raise
        raise explanation from error


def _explanation(error: DBAPIError) -> CharloomError | None:
    """Our error, if waiting or fixing something helps; None for a wrong statement."""
    reason = str(error.orig).lower()
    if isinstance(error, ProgrammingError) and error.statement is None:  # while connecting
        return _wrong_url()
    if isinstance(error, IntegrityError | ProgrammingError | DataError | NotSupportedError):
        return None
    for words, message in _REASONS:
        if any(word in reason for word in words):
            return StorageFailed(message)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(error, InternalError) or code == sqlite3.SQLITE_ERROR:  # as "no such table"
        return None
    if isinstance(error.orig, sqlite3.Error) and "locked" not in reason:
        return StorageFailed(
            "The database file cannot be used; it may be damaged. Restore a backup. Or move the "
            "file away: the models stay, but aliases, datasets and jobs are lost."
        )
    return _no_answer()


_REASONS: Final = (
    (("is full", "no space"), "The disk of the database is full; make room and try again."),
    (
        ("readonly", "read-only", "unable to open"),
        "The database cannot be written: its folder or disk is read-only, or belongs to another "
        "user. CHARLOOM_DATA_DIR says where it is.",
    ),
    (
        ("i/o error",),
        "The disk of the database fails to read or write; it may be full or failing.",
    ),
    (
        ("authentication failed", "does not exist", "no password", "pg_hba.conf"),
        "The database refuses the user, the password or the database's name "
        "in CHARLOOM_DATABASE_URL.",
    ),
)


def _no_answer() -> Overloaded:
    return Overloaded(
        "The database does not answer at the moment; try again.", code="database_unavailable"
    )
