"""Sessions: one transaction each, the settings of a connection, and refusals in plain words."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.database import session
from app.database.model_tables import ModelRow
from app.database.session import SAFE_WAL, Database, journal_mode
from app.errors import CharloomError, InvalidInput, Overloaded, StorageFailed
from tests import disks

DAMAGED = {
    "text": b"this is no database at all\n" * 1000,
    "a header only": b"SQLite format 3\0" + b"\0" * 5000,
}


def add(database: Database, name: str) -> None:
    with database.session() as session:
        session.add(ModelRow(name=name, next_version=1, created_at=0))


def add_and_fail(database: Database) -> None:
    with database.session() as session:
        session.add(ModelRow(name="lost", next_version=1, created_at=0))
        session.flush()
        raise ZeroDivisionError


def names(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return sorted(row.name for row in session.query(ModelRow))


def path_of(url: str) -> Path:
    return Path(str(make_url(url).database))


def impatient(database: Database) -> Database:
    """The same database, whose connections wait for a lock a moment only."""
    event.listen(database.engine, "connect", lambda c, _: c.execute("PRAGMA busy_timeout=20"))
    database.engine.dispose()
    return database


@contextmanager
def held(url: str, begin: str) -> Iterator[None]:
    """Another program is in a transaction on a SQLite file."""
    with closing(sqlite3.connect(path_of(url), isolation_level=None)) as other:
        other.execute(begin)
        yield
        other.execute("ROLLBACK")


def test_a_session_is_one_transaction(database: Database) -> None:
    add(database, "kept")
    with pytest.raises(ZeroDivisionError):
        add_and_fail(database)
    with database.session() as session:
        session.add(ModelRow(name="later", next_version=1, created_at=0))
        session.flush()
        assert names(database) == ["kept"]
    assert names(database) == ["kept", "later"]


def test_what_was_read_stays_readable_after_the_session(database: Database) -> None:
    add(database, "names")
    with database.session() as session:
        row = session.get(ModelRow, "names")
    assert row is not None
    assert row.next_version == 1


def test_a_broken_constraint_is_for_the_caller(database: Database) -> None:
    add(database, "names")
    with pytest.raises(IntegrityError):
        add(database, "names")
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(ModelRow(name="zero", next_version=0, created_at=0))
    with pytest.raises(IntegrityError), database.session() as session:
        session.execute(text("INSERT INTO model_aliases VALUES ('nobody', 'production', 1)"))
    assert names(database) == ["names"]


def test_a_mistake_of_ours_stays_one(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_table") as caught, database.session() as session:
        session.execute(text("SELECT * FROM no_such_table"))
    if database.engine.dialect.name == "postgresql":
        assert isinstance(caught.value, ProgrammingError)
    assert names(database) == []


def test_writers_take_turns_and_lose_nothing(database: Database) -> None:
    add(database, "names")

    def count() -> None:
        for _ in range(20):
            with database.session() as session:
                row = session.get(ModelRow, "names", with_for_update=True)
                assert row is not None
                row.next_version += 1

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.session() as session:
        row = session.get(ModelRow, "names")
        assert row is not None
        assert row.next_version == 161


def test_a_database_answers_and_describes_itself(database: Database) -> None:
    database.ping()
    described = database.describe()
    assert described.startswith(("SQLite 3", "PostgreSQL 1", "PostgreSQL 2"))
    if "SQLite" in described:
        assert journal_mode(sqlite3.sqlite_version_info) in described


def test_every_connection_to_sqlite_is_set_up(sqlite_database: Database) -> None:
    wanted = {
        "foreign_keys": 1,
        "synchronous": 2,  # FULL
        "busy_timeout": 10_000,
        "journal_mode": journal_mode(sqlite3.sqlite_version_info).lower(),
    }
    with sqlite_database.engine.connect() as one, sqlite_database.engine.connect() as two:
        for connection in (one, two):
            driver = connection.connection.driver_connection
            assert driver is not None
            for name, value in wanted.items():
                assert driver.execute(f"PRAGMA {name}").fetchone() == (value,), name


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 7, 0), "DELETE"),
        ((3, 40, 1), "DELETE"),
        ((3, 51, 2), "DELETE"),
        (SAFE_WAL, "WAL"),
        ((3, 52, 0), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_write_ahead_logs_are_used_from_the_mended_version_on(
    version: tuple[int, ...], mode: str
) -> None:
    assert journal_mode(version) == mode


def test_a_file_with_another_journal_is_brought_back(sqlite_url: str) -> None:
    path = path_of(sqlite_url)
    path.parent.mkdir()
    wanted = journal_mode(sqlite3.sqlite_version_info)
    other = "DELETE" if wanted == "WAL" else "WAL"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"PRAGMA journal_mode={other}").fetchone() == (other.lower(),)
        connection.execute("CREATE TABLE own (x)")
    with closing(Database(sqlite_url)) as database:
        database.ping()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (wanted.lower(),)


def test_a_locked_database_asks_to_try_again(sqlite_database: Database, sqlite_url: str) -> None:
    database = impatient(sqlite_database)
    database.ping()
    with held(sqlite_url, "BEGIN IMMEDIATE"):
        with pytest.raises(Overloaded, match="try again") as caught:
            add(database, "names")
        assert caught.value.code == "database_unavailable"
        assert names(database) == []  # reading goes on
    with held(sqlite_url, "BEGIN EXCLUSIVE"):
        with pytest.raises(Overloaded):
            add(database, "names")
        if journal_mode(sqlite3.sqlite_version_info) == "DELETE":
            with pytest.raises(Overloaded):
                database.ping()
    add(database, "names")
    assert names(database) == ["names"]


def test_a_health_check_waits_for_no_lock_and_no_connection(
    sqlite_database: Database, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds each, and all the threads that wait for them: a server seems dead."""
    monkeypatch.setattr(session, "_HURRIED_SECONDS", 0.05)
    with ExitStack() as opened, closing(Database(sqlite_url)) as database:
        database.ping()
        opened.enter_context(held(sqlite_url, "BEGIN EXCLUSIVE"))
        if journal_mode(sqlite3.sqlite_version_info) == "WAL":  # readers wait for nobody
            database.ping()
            return
        began = time.monotonic()
        with pytest.raises(Overloaded):
            database.ping()
        assert time.monotonic() - began < 9  # others wait for ten seconds


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace_file(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "The database file is gone"),
        (move, "The database file is gone"),
        (move_folder, "The folder of the database is gone"),
        (replace_file, "replaced by another one"),
    ],
)
def test_a_file_that_was_taken_away_is_missed_at_once(
    sqlite_database: Database, sqlite_url: str, change: Callable[[Path], None], said: str
) -> None:
    """An open file stays open: without a look, all that is written from now on is lost."""
    add(sqlite_database, "kept")
    sqlite_database.ping()
    path = path_of(sqlite_url)
    change(path)
    there = path.exists()
    for act in (sqlite_database.ping, lambda: names(sqlite_database),
                lambda: add(sqlite_database, "lost")):  # fmt: skip
        with pytest.raises(StorageFailed, match=said) as caught:
            act()
        assert "read-only" not in caught.value.message
    sqlite_database.engine.dispose()  # also for a connection that is opened only now
    with pytest.raises(StorageFailed, match=said):
        names(sqlite_database)
    assert path.exists() is there, "an empty file was made in its place"


def test_a_folder_that_comes_back_is_used_again(sqlite_database: Database, sqlite_url: str) -> None:
    add(sqlite_database, "kept")
    folder = path_of(sqlite_url).parent
    away = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StorageFailed):
        sqlite_database.ping()
    away.rename(folder)
    sqlite_database.ping()
    assert names(sqlite_database) == ["kept"]


def test_a_disk_that_became_read_only_is_said(
    sqlite_database: Database, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_database.ping()
    folder = path_of(sqlite_url).parent
    monkeypatch.setattr("app.database.file.os.access", lambda place, _: Path(place) != folder)
    with pytest.raises(StorageFailed, match="folder of the database is read-only"):
        sqlite_database.ping()


def test_a_lock_that_is_let_go_in_time_is_waited_for(
    sqlite_database: Database, sqlite_url: str
) -> None:
    held_now = threading.Event()

    def hold() -> None:
        with held(sqlite_url, "BEGIN IMMEDIATE"):
            held_now.set()
            threading.Event().wait(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    held_now.wait()
    add(sqlite_database, "names")
    holder.join()
    assert names(sqlite_database) == ["names"]


def test_more_sessions_than_connections_ask_to_try_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.05)
    with ExitStack() as connections:
        for _ in range(15):  # five that are kept, ten more
            connections.enter_context(database.engine.connect())
        with pytest.raises(Overloaded) as caught:
            names(database)
        assert caught.value.code == "database_unavailable"
        database.ping()  # has a connection of its own
    assert names(database) == []


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "data.sqlite3", "mysql://me@host/x", "oracle://", "sqlite://", "sqlite:///",
     "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "sqlite:///x?timeout=1",
     "sqlite:///a\0b", "sqlite+aiosqlite:///x", "sqlite+pysqlcipher:///x",
     "postgresql://me@host:port/x", "http://127.0.0.1/"],
    ids=ascii,
)  # fmt: skip
def test_a_url_of_no_database_that_we_know(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=r"must be sqlite:///FILE or postgresql://") as caught:
        Database(url)
    assert caught.value.param == "database_url"
    assert list(tmp_path.iterdir()) == []


def refusal(url: str) -> CharloomError:
    database = Database(url)
    try:
        with pytest.raises(CharloomError) as caught:
            database.migrate()
        with pytest.raises(CharloomError):
            database.ping()
    finally:
        database.close()
    assert "127.0.0.1" not in caught.value.message
    return caught.value


def test_an_option_that_is_none(postgres_url: str) -> None:
    for option in ("nonsense=1", "connect_timeout=soon"):
        assert isinstance(refusal(f"{postgres_url}?{option}"), InvalidInput)


def test_a_server_that_refuses_or_is_not_there(postgres_url: str, unused_port: int) -> None:
    url = make_url(postgres_url)
    wrong = [url.set(database="nothing_here"), url.set(username="nobody_here")]
    for each in wrong:
        error = refusal(each.render_as_string(hide_password=False))
        assert isinstance(error, StorageFailed)
        assert "the user, the password or the database's name" in error.message
    gone = url.set(port=unused_port).render_as_string(hide_password=False)
    assert isinstance(refusal(gone), Overloaded)


def test_a_connection_that_the_server_has_dropped_is_replaced(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, closing(Database(postgres_url)) as other:
        database.migrate()
        with other.session() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        add(database, "names")
        with pytest.raises(Overloaded), database.session() as session:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert names(database) == ["names"]


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    error = refusal(f"sqlite:///{tmp_path}/x")
    assert isinstance(error, StorageFailed)
    assert "Restore a backup" in error.message
    assert (tmp_path / "x").read_bytes() == content


def test_a_page_that_was_overwritten(sqlite_database: Database, sqlite_url: str) -> None:
    sqlite_database.close()
    path = path_of(sqlite_url)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    error = refusal(sqlite_url)
    assert isinstance(error, StorageFailed)


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="CHARLOOM_DATA_DIR"):
        Database(f"sqlite:///{tmp_path}/file/x")
    assert "CHARLOOM_DATA_DIR says where" in refusal(f"sqlite:///{tmp_path}").message


def test_a_database_that_takes_nothing_says_so_before_it_is_needed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    add(database, "names")
    database.check_writing()
    if database.engine.dialect.name == "postgresql":
        refusing = Database(f"{database_url}?options=-c%20default_transaction_read_only%3Don")
        with closing(refusing), pytest.raises(StorageFailed, match="cannot be written"):
            refusing.check_writing()
        return
    with (
        disks.read_only_disk(tmp_path / "data") as folder,
        closing(Database(f"sqlite:///{folder}/charloom.sqlite3")) as refusing,
        pytest.raises(StorageFailed),
    ):
        refusing.check_writing()
    assert names(database) == ["names"]


def fill_up(database: Database) -> None:
    for number in range(1000):
        rows = [{"name": f"{number}-{i}" + "x" * 60} for i in range(4000)]
        with database.session() as session:
            session.execute(text("INSERT INTO metric_names (name) VALUES (:name)"), rows)


def test_a_full_disk_says_so_and_nothing_is_half_there(tmp_path: Path) -> None:
    with (
        disks.small_disk(tmp_path / "disk") as disk,
        closing(Database(f"sqlite:///{disk}/x")) as database,
    ):
        database.migrate()
        with pytest.raises(StorageFailed, match="full") as caught:
            fill_up(database)
        assert str(tmp_path) not in caught.value.message
        with database.session(read_only=True) as session:
            counted = session.execute(text("SELECT count(*) FROM metric_names")).scalar_one()
            assert counted % 4000 == 0
            assert session.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
