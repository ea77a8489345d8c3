"""What was deleted stays deleted: on read-only disks, after kills, while files are listed."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.catalog import synchronising
from app.catalog.datasets import Datasets
from app.catalog.deletions import Deletions
from app.catalog.models import Registry
from app.catalog.synchronising import Synchronised
from app.database.deletion_tables import PendingDeletionRow
from app.database.session import Database
from app.database.tables import new_ulid
from app.errors import Conflict, NotFound, UnknownModel
from app.store import model_file
from app.store.artifact import write
from app.store.blobs import BlobStore
from tests.models import tiny_artifact

MANY = 120


class Disk:
    """A disk that can be made read-only: root is not stopped by permissions."""

    def __init__(self) -> None:
        self.read_only = False

    def check(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Removing files of this process fails while the disk is read-only."""
    disk, unlink = Disk(), os.unlink

    def checked(*arguments: Any, **named: Any) -> None:
        disk.check()
        unlink(*arguments, **named)

    monkeypatch.setattr(os, "unlink", checked)
    yield disk
    disk.read_only = False


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def pending(database: Database) -> list[tuple[str, str]]:
    with database.session(read_only=True) as session:
        rows = session.scalars(select(PendingDeletionRow)).all()
        return sorted((row.store, row.key) for row in rows)


def restarted(registry: Registry) -> Registry:
    """The same store and database as another process sees them, after its start."""
    again = Registry(registry._database, registry._blobs)
    again.synchronise()
    return again


def test_on_a_read_only_disk_a_model_is_gone_at_once_and_its_files_later(
    registry: Registry,
    database: Database,
    models_dir: Path,
    disk: Disk,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for seed in (1, 2, 3):
        registry.publish("names", tiny_artifact(seed=seed))
    registry.set_alias("names", "production", 1)
    disk.read_only = True
    with caplog.at_level(logging.WARNING):
        registry.delete_version("names", 3)
        registry.delete("names")
    assert [record.exc_info for record in caplog.records] == [None, None]
    assert "models: files that were deleted and could not be removed yet: 2" in caplog.text
    assert "read-only" in caplog.text
    assert len(files(models_dir)) == 3
    for _ in range(2):
        again = restarted(registry)
        assert again.list() == []
    assert len(pending(database)) == 3
    disk.read_only = False
    again.deletions.sweep()
    assert files(models_dir) == []
    assert pending(database) == []
    assert again.publish("names", tiny_artifact()).version == 4


def delete_slowly(url: str, models_dir: str) -> None:
    unlink = os.unlink

    def slowly(*arguments: Any, **named: Any) -> None:
        unlink(*arguments, **named)
        time.sleep(0.02)

    os.unlink = slowly
    with closing(Database(url)) as database:
        Registry(database, BlobStore(models_dir)).delete("names")


def test_killed_in_the_middle_of_deleting_many_versions(
    registry: Registry, database: Database, database_url: str, models_dir: Path
) -> None:
    (models_dir / "names").mkdir(parents=True)
    for number in range(1, MANY + 1):
        path = models_dir / f"names/{number}.safetensors"
        path.write_bytes(write(tiny_artifact()))
    assert len(registry.synchronise().added) == MANY
    registry.set_alias("names", "production", 7)
    spawned = multiprocessing.get_context("spawn")
    deleting = spawned.Process(target=delete_slowly, args=(database_url, str(models_dir)))
    deleting.start()
    while len(files(models_dir)) == MANY:
        assert deleting.is_alive()
        time.sleep(0.005)
    deleting.kill()
    deleting.join()
    assert 0 < len(files(models_dir)) < MANY
    again = restarted(registry)
    assert again.list() == []
    with pytest.raises(UnknownModel):
        again.resolve("names@production")
    assert files(models_dir) == []


def test_deleting_many_versions_flushes_their_folder_once(
    registry: Registry, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(8):
        registry.publish("names", tiny_artifact(seed=seed))
    flushed = list[int]()
    monkeypatch.setattr("app.store.folder.os.fsync", flushed.append)
    registry.delete("names")
    assert files(models_dir) == []
    assert len(flushed) == 1


@pytest.mark.parametrize("read_only", [False, True])
def test_a_listing_from_before_the_deletion_brings_nothing_back(
    registry: Registry,
    database: Database,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    read_only: bool,
) -> None:
    registry.publish("names", tiny_artifact())
    registry.publish("others", tiny_artifact())
    sizes = BlobStore.sizes

    def then_deleted(self: BlobStore, folder: str = "", **rest: Any) -> dict[str, int]:
        found = sizes(self, folder, **rest)
        disk.read_only = read_only
        registry.delete("names")
        return found

    monkeypatch.setattr(BlobStore, "sizes", then_deleted)
    report = Registry(database, registry._blobs).synchronise()
    assert (report.added, report.damaged, report.missing) == ([], {}, [])
    assert [each.name for each in registry.list()] == ["others"]


def test_a_file_that_goes_while_it_is_checked_is_not_registered(
    registry: Registry, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry leaves the table with the file, so the table alone does not tell."""
    registry.publish("names", tiny_artifact())
    with monkeypatch.context() as unfinished:
        unfinished.setattr(Deletions, "finish", lambda *_: None)
        registry.delete("names")
    check = model_file.check

    def swept_meanwhile(stream: Any) -> Any:
        checked = check(stream)
        registry.deletions.sweep()
        assert files(models_dir) == []
        return checked

    monkeypatch.setattr(synchronising, "check", swept_meanwhile)
    report = Synchronised()
    files_in = registry.synchronising
    files_in.register([files_in.checked("names/1.safetensors")], report)
    assert report.added == []
    assert registry.list() == []


def test_a_folder_that_was_away_does_not_bring_deleted_versions_back(
    registry: Registry, database: Database, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    registry.publish("others", tiny_artifact())
    (models_dir / "names").rename(models_dir.parent / "elsewhere")
    registry.delete("names")
    assert pending(database) == [("models", "names/1.safetensors")]
    restarted(registry)
    assert pending(database) == [("models", "names/1.safetensors")]
    (models_dir.parent / "elsewhere").rename(models_dir / "names")
    assert [each.name for each in restarted(registry).list()] == ["others"]
    assert files(models_dir) == ["others/1.safetensors"]
    assert pending(database) == []


def test_the_entry_of_an_absent_file_is_dropped_after_a_week(
    registry: Registry, database: Database, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    (models_dir / "names/1.safetensors").unlink()
    registry.delete("names")
    for days, left in ((6, 1), (8, 0)):
        with database.session() as session:
            aged = PendingDeletionRow.created_at - days * 86_400_000
            session.execute(update(PendingDeletionRow).values(created_at=aged))
        registry.deletions.sweep()
        assert len(pending(database)) == left


def test_a_file_that_lost_its_run_goes_even_when_it_cannot_be_removed_now(
    registry: Registry, database: Database, models_dir: Path, disk: Disk
) -> None:
    run_id = new_ulid()
    first, second = (registry.stage("names", tiny_artifact(), run_id) for _ in range(2))
    with database.session() as session:
        registry.register(session, first)
        assert registry.register(session, second).key == first.key
    # Killed here: nobody unstages the second file.
    disk.read_only = True
    registry.unstage(second)
    assert registry.left_by(run_id, "names") is None
    assert [each.version for each in restarted(registry).versions("names")] == [1]
    disk.read_only = False
    registry.deletions.sweep()
    assert files(models_dir) == ["names/1.safetensors"]


def test_a_staged_file_that_was_found_and_deleted_is_not_published(
    registry: Registry, database: Database
) -> None:
    staged = registry.stage("names", tiny_artifact(), new_ulid())
    assert registry.synchronise().added == ["names@1"]
    registry.set_alias("names", "x", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deletions, "finish", lambda *_: None)
        registry.delete("names")
    with pytest.raises(Conflict) as caught, database.session() as session:
        registry.register(session, staged)
    assert caught.value.code == "version_deleted"


def test_a_dataset_on_a_read_only_disk(
    database: Database, tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "words.txt"
    source.write_text("\n".join(a + b + c for a in "bdklm" for b in "aeiou" for c in "nrst"))
    folder = tmp_path / "datasets"
    datasets = Datasets(database, BlobStore(str(folder)))
    first = datasets.add(source, "words")
    disk.read_only = True
    datasets.delete(first.id)
    with pytest.raises(NotFound):
        datasets.get(first.id)
    assert [record.exc_info for record in caplog.records] == [None]
    disk.read_only = False
    second = datasets.add(source, "words")
    assert len(files(folder)) == 2
    Datasets(database, BlobStore(str(folder))).sweep()
    assert files(folder) == [second.uri]
    assert pending(database) == []
