"""Files that are absent, damaged or back again: told by who sees it, forgotten by nobody."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.catalog.models import Registry
from app.database.session import Database
from app.errors import CharloomError, NotFound, Overloaded, StorageFailed, UnknownModel
from app.store.artifact import write
from app.store.blobs import BlobStore
from app.store.objects import Objects
from app.store.seen import Stamp
from tests.models import tiny_artifact


def another_server(registry: Registry) -> Registry:
    again = Registry(registry._database, registry._blobs)
    again.synchronise()
    return again


def statuses(registry: Registry, name: str = "names") -> dict[int, str]:
    return {each.version: each.status for each in registry.looked_at(registry.versions(name))}


def codes(registry: Registry, reference: str) -> set[str]:
    """What each way to use a version raises."""
    found, version = set[str](), registry.resolve(reference)
    for use in (registry.require, registry.verify, registry.open, registry.fetch):
        with pytest.raises(CharloomError) as caught:
            use(version)
        found.add(caught.value.code)
    return found


def usable(registry: Registry, reference: str) -> None:
    version = registry.resolve(reference)
    registry.require(version)
    registry.verify(version)
    assert write(registry.open(version)) == b"".join(registry.fetch(version))


def test_a_models_folder_that_is_away_for_one_start_keeps_its_aliases(
    registry: Registry, models_dir: Path
) -> None:
    for seed in (1, 2):
        registry.publish("names", tiny_artifact(seed=seed))
    registry.publish("others", tiny_artifact())
    registry.set_alias("names", "production", 1)
    (models_dir / "names").rename(models_dir.parent / "elsewhere")
    started = Registry(registry._database, registry._blobs)
    report = started.synchronise()
    assert (report.missing, report.damaged) == (["names@2", "names@1"], {})
    assert statuses(started) == {1: "missing", 2: "missing"}
    (seen,) = started.looked_at([started.resolve("names@production")])
    assert seen.status_reason is not None
    assert "names@1 is not in the model store" in seen.status_reason
    assert codes(started, "names@production") == {"model_file_missing"}
    assert statuses(started, "others") == {1: "available"}
    (models_dir.parent / "elsewhere").rename(models_dir / "names")
    assert statuses(started) == {1: "available", 2: "available"}
    usable(started, "names@production")
    assert another_server(registry).synchronise().missing == []
    assert registry.resolve("names").aliases == {"production": 1}


def test_the_newest_version_stays_the_newest_without_its_file(
    registry: Registry, models_dir: Path
) -> None:
    for seed in (1, 2):
        registry.publish("names", tiny_artifact(seed=seed))
    (models_dir / "names/2.safetensors").unlink()
    assert another_server(registry).resolve("names").version == 2
    with pytest.raises(Overloaded) as caught:
        registry.open(registry.resolve("names"))
    assert caught.value.code == "model_file_missing"
    usable(registry, "names@1")
    assert registry.publish("names", tiny_artifact()).version == 3


def another_file(path: Path) -> None:
    path.write_bytes(write(tiny_artifact(seed=2)))  # a good one, of the same size


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def garbled(path: Path) -> None:
    """One bit, and the time of writing as before."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [another_file, truncated, garbled, emptied])
def test_a_damaged_file_is_never_used_and_listed_as_such(
    registry: Registry, models_dir: Path, damage: Callable[[Path], None]
) -> None:
    registry.publish("names", tiny_artifact())
    path = models_dir / "names/1.safetensors"
    whole = path.read_bytes()
    damage(path)
    with pytest.raises(StorageFailed, match="names@1 is not the one that was published") as caught:
        registry.open(registry.resolve("names"))
    assert caught.value.code == "damaged_model"
    assert codes(registry, "names") == {"damaged_model"}
    (seen,) = registry.looked_at([registry.resolve("names")])
    assert seen.status == "damaged"
    assert seen.status_reason == caught.value.message
    path.write_bytes(whole)
    os.utime(path, (1, 1))  # the system's clock for files may stand for some milliseconds
    assert statuses(registry) == {1: "available"}
    usable(registry, "names")
    assert another_server(registry).resolve("names") == registry.resolve("names")


def test_a_file_of_another_size_is_reported_at_the_start(
    registry: Registry, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    truncated(models_dir / "names/1.safetensors")
    assert list(registry.synchronise().damaged) == ["names/1.safetensors"]


def test_a_file_known_to_be_damaged_is_not_read_again(
    registry: Registry, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.publish("names", tiny_artifact())
    garbled(models_dir / "names/1.safetensors")
    opened, original = list[str](), BlobStore.open

    def counted(self: BlobStore, key: str) -> object:
        opened.append(key)
        return original(self, key)

    monkeypatch.setattr(BlobStore, "open", counted)
    for _ in range(5):
        with pytest.raises(StorageFailed):
            registry.open(registry.resolve("names"))
    assert len(opened) == 1


def test_a_file_that_changes_while_it_is_sent_ends_short(
    registry: Registry, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    version = registry.resolve("names")
    path = models_dir / "names/1.safetensors"
    pieces = registry.fetch(version)
    garbled(path)
    sent = list[bytes]()
    with pytest.raises(StorageFailed) as caught:
        sent.extend(pieces)
    assert caught.value.code == "damaged_model"
    assert len(b"".join(sent)) < version.size_bytes


def test_a_file_that_is_replaced_or_removed_while_it_is_sent_is_sent_whole(
    registry: Registry, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    pieces = registry.fetch(registry.resolve("names"))
    (models_dir / "names/1.safetensors").unlink()
    assert b"".join(pieces) == write(tiny_artifact())


def test_what_cannot_be_read_is_missing_with_its_reason(
    registry: Registry, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    path = models_dir / "names/1.safetensors"
    path.rename(models_dir.parent / "elsewhere")
    path.symlink_to(models_dir.parent / "elsewhere")  # out of the store
    (seen,) = registry.looked_at([registry.resolve("names")])
    assert seen.status == "missing"
    assert seen.status_reason is not None
    assert "a link leads out of the store" in seen.status_reason
    path.unlink()
    path.mkdir()  # no file
    assert codes(registry, "names") == {"model_file_missing"}


def test_in_an_object_store_too(sqlite_database: Database, tmp_path: Path) -> None:
    blobs = BlobStore(f"memory://{tmp_path.name}")
    registry = Registry(sqlite_database, blobs)
    for seed in (1, 2, 3):
        registry.publish("names", tiny_artifact(seed=seed))
    assert statuses(registry) == {1: "available", 2: "available", 3: "available"}
    content = b"".join(blobs.pieces("names/2.safetensors"))
    blobs.delete("names/2.safetensors")
    registry.publish("names", tiny_artifact())  # the last listing does not have it
    assert statuses(registry)[4] == "available"
    assert codes(registry, "names@2") == {"model_file_missing"}
    blobs.put("names/2.safetensors", content[:-1] + b"\1")
    with pytest.raises(StorageFailed, match="names@2"):
        registry.verify(registry.resolve("names@2"))
    blobs.delete("names/2.safetensors")
    blobs.put("names/2.safetensors", content)
    usable(registry, "names@2")


def test_an_object_store_is_listed_once_for_many_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore(f"memory://{tmp_path.name}")
    keys = [f"names/{number}.safetensors" for number in range(50)]
    for key in keys:
        blobs.put(key, key.encode())
    listings, find = list[str](), Objects._find

    def counted(self: Objects, folder: str) -> dict[str, Stamp]:
        listings.append(folder)
        return find(self, folder)

    monkeypatch.setattr(Objects, "_find", counted)
    for _ in range(3):
        seen = blobs.stamps(keys)
        assert all(isinstance(each, Stamp) for each in seen.values())
    assert listings == [""]
    seen = blobs.stamps([*keys, "names/gone"])  # an absent file is looked for anew
    assert isinstance(seen["names/gone"], NotFound)
    assert len(listings) == 2


@pytest.mark.parametrize("away", ["gone", "empty", "another"])
def test_nothing_is_written_into_a_store_that_has_none_of_the_known_files(
    registry: Registry, models_dir: Path, away: str
) -> None:
    registry.check_store()  # no version is known: an empty store is all right
    registry.publish("names", tiny_artifact())
    registry.publish("names", tiny_artifact(seed=2))
    registry.set_alias("names", "production", 1)
    (models_dir / "names/2.safetensors").unlink()
    registry.check_store()  # one of two is there
    models_dir.rename(models_dir.parent / "elsewhere")
    if away != "gone":
        models_dir.mkdir()
    if away == "another":
        (models_dir / "README.md").write_text("Mounted later.")
    started = another_server(registry)
    for attempt in (
        started.check_store,
        lambda: started.publish("names", tiny_artifact()),
        lambda: started.publish("new", tiny_artifact()),
    ):
        with pytest.raises(StorageFailed, match="CHARLOOM_MODELS_DIR") as caught:
            attempt()
        assert caught.value.code == "store_empty"
    assert not list(models_dir.rglob("*.safetensors"))
    assert models_dir.exists() == (away != "gone")
    if models_dir.exists():
        (models_dir / "README.md").unlink(missing_ok=True)
        models_dir.rmdir()
    (models_dir.parent / "elsewhere").rename(models_dir)
    started.check_store()
    usable(started, "names@production")
    assert started.publish("new", tiny_artifact()).version == 1


def test_a_store_whose_models_were_all_deleted_takes_models(
    registry: Registry, models_dir: Path
) -> None:
    registry.publish("names", tiny_artifact())
    (models_dir / "names/1.safetensors").unlink()
    registry.delete("names")
    registry.check_store()
    assert registry.publish("names", tiny_artifact()).version == 2
    with pytest.raises(UnknownModel):
        registry.resolve("names@1")
