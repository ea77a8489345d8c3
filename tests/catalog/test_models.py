"""The registry over a real store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from app.catalog import model_rows
from app.catalog.model_rows import ModelVersion
from app.catalog.models import Registry
from app.database.session import Database
from app.database.tables import new_ulid
from app.errors import Conflict, InvalidInput, NotFound, UnknownModel
from app.store.artifact import write
from app.store.blobs import BlobStore
from tests import disks
from tests.models import tiny_artifact


def versions(registry: Registry, name: str) -> list[int]:
    return [each.version for each in registry.versions(name)]


def test_what_is_published_is_listed_resolved_and_opened(
    registry: Registry, models_dir: Path
) -> None:
    artifact = tiny_artifact(run_id=None)
    published = registry.publish("names", artifact)
    assert published.id == "names@1"
    assert (models_dir / "names/1.safetensors").read_bytes() == write(artifact)
    assert published.size_bytes == len(write(artifact))
    assert published.created_at == artifact.card.created_at
    assert "vocabulary" not in published.card
    assert published.card["symbols"] == 5
    opened = registry.open(registry.resolve("names"))
    assert opened.card.sha256 == published.sha256
    assert write(opened) == write(artifact)
    assert b"".join(registry.fetch(published)) == write(artifact)


def test_names_versions_and_aliases(registry: Registry) -> None:
    for seed in (1, 2, 3):
        registry.publish("names", tiny_artifact(seed=seed))
    registry.publish("ft:names:mine", tiny_artifact())
    assert [each.id for each in registry.list()] == ["ft:names:mine@1", "names@3"]
    assert versions(registry, "names") == [3, 2, 1]
    assert registry.resolve("names").version == 3
    assert registry.resolve("names@2").version == 2
    assert registry.set_alias("names", "production", 1).aliases == {"production": 1}
    assert registry.resolve("names@production").version == 1
    registry.set_alias("names", "production", 2)
    assert registry.resolve("names@production").version == 2
    assert registry.list()[1].aliases == {"production": 2}
    assert registry.delete_alias("names", "production") == 2
    with pytest.raises(UnknownModel):
        registry.resolve("names@production")
    with pytest.raises(NotFound) as caught:
        registry.delete_alias("names", "production")
    assert caught.value.code == "alias_not_found"


@pytest.mark.parametrize(
    "reference",
    ["", "nobody", "names@", "names@2", "names@0", "names@99999999999999", "names@²", "@1",
     "../names", "names\x00", "na/mes", "names@production", "names@pro\x00", "NAMES", "a" * 300,
     "names@" + "x" * 300],
)  # fmt: skip
def test_an_unknown_model_is_answered_with_the_known_ones(
    registry: Registry, reference: str
) -> None:
    registry.publish("names", tiny_artifact())
    with pytest.raises(UnknownModel) as caught:
        registry.resolve(reference)
    assert "Models here: names." in caught.value.message
    assert caught.value.param == "model"
    assert len(caught.value.message) < 300


def test_without_a_model_the_message_says_so(registry: Registry) -> None:
    with pytest.raises(UnknownModel, match="none yet"):
        registry.resolve("names")


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "../a", ".a", "A", "a b", "é", "a" * 65, "a:b", "ft:", "ft::a",
             "a\n", "ft:" + ":".join("a" * 64 for _ in range(4))]
)  # fmt: skip
def test_a_name_that_is_not_one_publishes_nothing(
    registry: Registry, models_dir: Path, name: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.publish(name, tiny_artifact())
    assert caught.value.param == "name"
    assert not models_dir.exists()


def with_rows(registry: Registry, database: Database, names: int, versions: int = 1) -> None:
    """Models without files: rows as many servers' worth of publishing leave them."""
    made = registry.publish("names", tiny_artifact())
    with database.session() as session:
        for name in (f"m{number:03}" for number in range(names)):
            model_rows.raise_next_version(session, name, versions + 1)
            for version in range(1, versions + 1):
                key = f"{name}/{version}.safetensors"
                row = replace(made, name=name, version=version, key=key)
                model_rows.insert_version(session, row)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is asked of the database in the block, except for its transactions."""
    asked: list[str] = []

    def note(*called: Any) -> None:
        asked.append(str(called[2]))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_models_are_cut_by_the_database(
    registry: Registry, database: Database, order: model_rows.Order
) -> None:
    with_rows(registry, database, names=25, versions=2)
    registry.set_alias("m003", "live", 1)
    whole = registry.list() if order == "asc" else registry.list()[::-1]
    found: list[ModelVersion] = []
    with statements(database) as asked:
        more = True
        while more:
            after = found[-1].name if found else None
            page, more = registry.newest_page(after=after, limit=10, order=order)
            assert len(page) <= 10
            found += page
    assert found == whole
    selects = [each for each in asked if each.startswith("SELECT")]
    assert len(selects) <= 3 * 3  # a page: is "after" there, its rows, their aliases
    assert all("LIMIT" in each for each in selects if "JOIN" in each)
    for after in ("nobody", "not a name", "a\0"):
        with pytest.raises(InvalidInput) as refused:
            registry.newest_page(after=after)
        assert refused.value.param == "after"


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_versions(registry: Registry, database: Database, order: model_rows.Order) -> None:
    with_rows(registry, database, names=1, versions=12)
    found: list[int] = []
    more = True
    while more:
        after = f"m000@{found[-1]}" if found else None
        page, more = registry.version_page("m000", after=after, limit=5, order=order)
        found += [each.version for each in page]
    assert found == sorted(range(1, 13), reverse=order == "desc")
    for after in ("m000@99", "names@1", "m000", "m000@x", "1"):
        with pytest.raises(InvalidInput) as refused:
            registry.version_page("m000", after=after)
        assert refused.value.param == "after"
    with pytest.raises(UnknownModel):
        registry.version_page("nobody")


def test_a_model_has_a_thousand_aliases_at_most(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_rows, "MOST_ALIASES", 3)
    for seed in (1, 2):
        registry.publish("names", tiny_artifact(seed=seed))
    for alias in ("a", "b", "c"):
        registry.set_alias("names", alias, 1)
    with pytest.raises(Conflict, match="3 aliases") as refused:
        registry.set_alias("names", "d", 1)
    assert refused.value.code == "too_many_aliases"
    assert registry.set_alias("names", "a", 2).aliases == {"a": 2, "b": 1, "c": 1}
    registry.delete_alias("names", "b")
    registry.set_alias("names", "d", 1)


@pytest.mark.parametrize("alias", ["", "3", "a/b", "A", "a" * 65, "é"])
def test_an_alias_that_is_not_one(registry: Registry, alias: str) -> None:
    registry.publish("names", tiny_artifact())
    with pytest.raises(InvalidInput) as caught:
        registry.set_alias("names", alias, 1)
    assert caught.value.param == "alias"


def test_a_version_that_an_alias_names_is_not_deleted(registry: Registry, models_dir: Path) -> None:
    registry.publish("names", tiny_artifact())
    registry.publish("names", tiny_artifact(seed=2))
    registry.set_alias("names", "production", 1)
    with pytest.raises(Conflict, match="production") as caught:
        registry.delete_version("names", 1)
    assert caught.value.code == "alias_in_use"
    registry.set_alias("names", "production", 2)
    registry.delete_version("names", 1)
    assert versions(registry, "names") == [2]
    assert [path.name for path in (models_dir / "names").iterdir()] == ["2.safetensors"]
    with pytest.raises(UnknownModel):
        registry.set_alias("names", "production", 1)


def test_a_number_is_never_used_twice(registry: Registry) -> None:
    registry.publish("names", tiny_artifact())
    registry.publish("names", tiny_artifact())
    registry.delete_version("names", 2)
    assert registry.publish("names", tiny_artifact()).version == 3
    registry.set_alias("names", "production", 3)
    registry.delete("names")
    assert registry.list() == []
    with pytest.raises(UnknownModel):
        registry.versions("names")
    assert registry.publish("names", tiny_artifact()).version == 4


def test_a_run_publishes_once(registry: Registry, models_dir: Path) -> None:
    run_id = new_ulid()
    first = registry.publish("names", tiny_artifact(), run_id)
    assert registry.publish("names", tiny_artifact(), run_id) == first
    assert first.run_id == run_id
    assert registry.open(first).card.run_id == run_id
    assert len(list(models_dir.rglob("*"))) == 2  # one folder, one file


def test_a_run_that_was_staged_twice_publishes_once(registry: Registry, database: Database) -> None:
    run_id = new_ulid()
    staged = [registry.stage("names", tiny_artifact(), run_id) for _ in range(2)]
    with database.session() as session:
        ids = [registry.register(session, each).id for each in staged]
    assert ids == ["names@1", "names@1"]
    registry.unstage(staged[1])
    assert registry.synchronise().damaged == {}
    assert versions(registry, "names") == [1]


def test_a_crash_between_file_and_row_leaves_a_whole_version(registry: Registry) -> None:
    staged = registry.stage("names", tiny_artifact(), new_ulid())
    with pytest.raises(UnknownModel):
        registry.resolve("names")
    assert registry.synchronise().added == ["names@1"]
    found = registry.resolve("names")
    assert found.run_id == staged.card.run_id
    assert registry.publish("names", tiny_artifact(), staged.card.run_id) == found


def test_a_new_database_is_filled_from_the_store(
    registry: Registry, models_dir: Path, sqlite_url: str
) -> None:
    for name in ("names", "plays"):
        for seed in (1, 2):
            registry.publish(name, tiny_artifact(seed=seed), new_ulid())
    other = Database(sqlite_url + ".new")
    other.migrate()
    rebuilt = Registry(other, BlobStore(str(models_dir)))
    assert rebuilt.synchronise().added == ["names@1", "names@2", "plays@1", "plays@2"]
    assert rebuilt.list() == registry.list()
    assert rebuilt.synchronise().added == []
    assert rebuilt.publish("names", tiny_artifact()).version == 3
    other.close()


def test_files_copied_in_by_hand(registry: Registry, models_dir: Path) -> None:
    registry.publish("names", tiny_artifact(), new_ulid())
    (models_dir / "copy").mkdir()
    shutil.copy(models_dir / "names/1.safetensors", models_dir / "copy/7.safetensors")
    (models_dir / "copy/8.safetensors").write_bytes(b"damaged")
    (models_dir / "stray.safetensors").write_bytes(write(tiny_artifact()))
    (models_dir / "Bad Name").mkdir()
    (models_dir / "Bad Name/1.safetensors").write_bytes(write(tiny_artifact()))
    (models_dir / "README.md").write_text("not a model")
    (models_dir / "copy/9.safetensors").symlink_to("/etc/hostname")
    report = registry.synchronise()
    assert report.added == ["copy@7"]
    assert sorted(report.damaged) == [
        "Bad Name/1.safetensors",
        "copy/8.safetensors",
        "copy/9.safetensors",
        "stray.safetensors",
    ]
    assert "shorter than 8 bytes" in report.damaged["copy/8.safetensors"]
    assert "NAME/VERSION" in report.damaged["stray.safetensors"]
    assert registry.resolve("copy").run_id is None  # the run has made names@1
    assert registry.open(registry.resolve("copy")).card.symbols == 5
    assert registry.publish("copy", tiny_artifact()).version == 10  # after every file there


def test_many_files_are_registered_in_few_transactions(
    registry: Registry, models_dir: Path, database: Database
) -> None:
    content = write(tiny_artifact())
    for number in range(250):
        place = models_dir / f"m{number % 25}" / f"{number + 1}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    commits: list[object] = []
    told: list[tuple[int, int]] = []
    event.listen(database.engine, "commit", commits.append)
    report = registry.synchronise(lambda done, of: told.append((done, of)))
    assert (len(report.added), report.damaged) == (250, {})
    assert told == [(done, 250) for done in range(250)]
    assert len(commits) <= 3 + 3  # of a hundred files each; what only reads may commit too
    assert len(registry.list()) == 25
    assert registry.publish("m0", tiny_artifact()).version == 227


def test_what_progress_raises_ends_it_and_the_next_time_goes_on(
    registry: Registry, models_dir: Path
) -> None:
    (models_dir / "names").mkdir(parents=True)
    for number in range(1, 151):
        (models_dir / f"names/{number}.safetensors").write_bytes(write(tiny_artifact()))

    def stop(done: int, of: int) -> None:
        if done == 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.synchronise(stop)
    assert len(registry.versions("names")) == 100
    assert len(registry.synchronise().added) == 50


@pytest.mark.parametrize("locked", ["names", "."])
def test_a_folder_that_cannot_be_read_is_passed_over_and_nothing_forgotten(
    registry: Registry, models_dir: Path, locked: str
) -> None:
    registry.publish("names", tiny_artifact())
    registry.set_alias("names", "production", 1)
    registry.publish("plays", tiny_artifact())
    with disks.unreadable_folder(models_dir / locked):
        report = registry.synchronise()
    assert report.missing == []
    assert list(report.damaged) == [locked]
    assert "permission denied" in report.damaged[locked]
    assert registry.resolve("names@production").version == 1


@pytest.mark.parametrize("card", ["'null'", "'{}'", "'[]'"])
def test_a_damaged_row_is_passed_over(registry: Registry, database: Database, card: str) -> None:
    registry.publish("names", tiny_artifact())
    registry.publish("names", tiny_artifact())
    with database.session() as session:
        session.execute(text(f"UPDATE model_versions SET card = {card} WHERE version = 2"))
    damage_is_passed_over(registry)


def test_a_damaged_row_ends_no_list(registry: Registry, database: Database) -> None:
    with_rows(registry, database, names=6, versions=6)
    with database.session() as session:
        damaged = "UPDATE model_versions SET card = '{}' WHERE "
        session.execute(text(damaged + "model_name = 'm001'"))
        session.execute(text(damaged + "model_name = 'm000' AND version = 5"))
    page, more = registry.newest_page(limit=2)
    assert ([each.name for each in page], more) == (["m000"], True)
    page, more = registry.newest_page(after="m000", limit=2)
    assert ([each.name for each in page], more) == (["m002"], True)
    page, more = registry.version_page("m000", limit=3)
    assert ([each.version for each in page], more) == ([6, 4], True)
    page, more = registry.version_page("m000", after="m000@6", limit=1)
    assert ([each.version for each in page], more) == ([4], True)
    page, more = registry.newest_page(after="m000", limit=1)
    assert ([each.name for each in page], more) == (["m002"], True)


def test_a_row_that_is_not_json_is_passed_over(
    sqlite_database: Database, models_dir: Path
) -> None:  # PostgreSQL takes none
    registry = Registry(sqlite_database, BlobStore(str(models_dir)))
    registry.publish("names", tiny_artifact())
    registry.publish("names", tiny_artifact())
    with sqlite_database.session() as session:
        session.execute(text("UPDATE model_versions SET card = '{half' WHERE version = 2"))
    damage_is_passed_over(registry)


def damage_is_passed_over(registry: Registry) -> None:
    report = registry.synchronise()
    assert (report.added, report.missing) == ([], [])
    assert list(report.damaged) == ["names/2.safetensors"]
    assert "row in the database is damaged" in report.damaged["names/2.safetensors"]
    assert versions(registry, "names") == [1]


def test_a_file_copied_in_while_serving_keeps_its_number(
    registry: Registry, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    copied = write(tiny_artifact(seed=9))
    (models_dir / "names/2.safetensors").write_bytes(copied)
    assert registry.publish("names", tiny_artifact(seed=3)).version == 3
    assert (models_dir / "names/2.safetensors").read_bytes() == copied


def at_once(count: int, act: Callable[[int], None]) -> list[BaseException]:
    """Call ``act`` in threads that start together; what they raised."""
    barrier, errors = threading.Barrier(count), list[BaseException]()

    def run(number: int) -> None:
        barrier.wait()
        try:
            act(number)
        except BaseException as error:  # noqa: BLE001 (handed to the test)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_many_publish_at_once(registry: Registry) -> None:
    def publish(number: int) -> None:
        for seed in range(3):
            registry.publish("names", tiny_artifact(seed=10 * number + seed))

    assert at_once(8, publish) == []
    assert versions(registry, "names") == list(range(24, 0, -1))
    seeds = {registry.open(each).card.seed for each in registry.versions("names")}
    assert len(seeds) == 24


def test_one_run_published_at_once_by_many_is_one_version(
    registry: Registry, models_dir: Path
) -> None:
    run_id = new_ulid()
    assert at_once(6, lambda _: void(registry.publish("names", tiny_artifact(), run_id))) == []
    (only,) = registry.versions("names")
    assert [path.name for path in models_dir.rglob("*.safetensors")] == [
        f"{only.version}.safetensors"
    ]


def void(_: object) -> None:
    """For what is done for its effect."""


def test_synchronising_while_publishing_loses_nothing(registry: Registry) -> None:
    def act(number: int) -> None:
        for _ in range(4):
            if number % 2:
                assert registry.synchronise().damaged == {}
            else:
                registry.publish("names", tiny_artifact())

    assert at_once(6, act) == []
    assert len(registry.versions("names")) == 12


def test_an_alias_set_while_its_version_is_deleted(registry: Registry) -> None:
    for round_ in range(5):
        version = registry.publish("names", tiny_artifact()).version

        def act(number: int, version: int = version) -> None:
            if number:
                registry.delete_version("names", version)
            else:
                registry.set_alias("names", "production", version)

        errors = at_once(2, act)
        assert len(errors) <= 1, round_
        assert all(isinstance(error, Conflict | UnknownModel) for error in errors)
        for alias in [] if not registry.list() else registry.list()[0].aliases:
            registry.open(registry.resolve(f"names@{alias}"))
            registry.delete_alias("names", alias)


def publish_in_a_process(url: str, models_dir: str, seed: int) -> None:
    database = Database(url)
    database.migrate()
    registry = Registry(database, BlobStore(models_dir))
    for _ in range(3):
        registry.publish("names", tiny_artifact(seed=seed))
    database.close()


def test_two_servers_starting_and_publishing_at_once(database_url: str, models_dir: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=publish_in_a_process, args=(database_url, str(models_dir), seed), daemon=True
        )
        for seed in (1, 2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    database = Database(database_url)
    registry = Registry(database, BlobStore(str(models_dir)))
    assert versions(registry, "names") == [6, 5, 4, 3, 2, 1]
    assert registry.synchronise().damaged == {}
    database.close()


def test_an_aliased_row_cannot_be_removed_behind_the_registry(
    registry: Registry, database: Database
) -> None:
    from sqlalchemy.exc import IntegrityError

    registry.publish("names", tiny_artifact())
    registry.set_alias("names", "production", 1)
    with pytest.raises(IntegrityError), database.session() as session:
        model_rows.remove_versions(session, "names", 1)
    assert versions(registry, "names") == [1]
