"""A store in a folder: links, leftovers, and disks that are full, read-only or failing."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.errors import CharloomError, Conflict, InvalidInput, NotFound, StorageFailed
from app.store.blobs import BlobStore
from tests import disks

KEY = "names/1.safetensors"
CONTENT = bytes(range(256)) * 100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def blobs(root: Path) -> BlobStore:
    return BlobStore(str(root))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file beside the store."""
    path = tmp_path / "secret"
    path.write_bytes(b"secret")
    return path


def everything(root: Path) -> list[str]:
    """Every file below, the hidden ones too."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(StorageFailed) as caught:
        attempt()
    return caught.value.message


def test_a_linked_file_leads_nowhere(blobs: BlobStore, root: Path, secret: Path) -> None:
    (root / "names").mkdir(parents=True)
    for link in (root / KEY, root / "names/2"):
        link.symlink_to(secret)
    assert "a link leads out of the store" in refused(lambda: list(blobs.pieces(KEY)))
    refused(lambda: blobs.local_path(KEY))
    refused(lambda: blobs.put(KEY, b"x"))
    refused(lambda: blobs.delete(KEY))
    assert secret.read_bytes() == b"secret"


def test_a_linked_folder_leads_nowhere(blobs: BlobStore, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1.safetensors").write_bytes(b"secret")
    root.mkdir()
    (root / "names").symlink_to(outside)
    for key in (KEY, "names/2.safetensors"):
        refused(lambda key=key: blobs.put(key, b"x"))  # type: ignore[misc]
        refused(lambda key=key: list(blobs.pieces(key)))  # type: ignore[misc]
        refused(lambda key=key: blobs.delete(key))  # type: ignore[misc]
    refused(lambda: blobs.sizes("names"))
    assert blobs.sizes() == {}
    assert everything(outside) == ["1.safetensors"]


def test_the_store_itself_may_be_a_link(blobs: BlobStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    root.symlink_to(tmp_path / "large-disk")
    blobs.put(KEY, b"x")
    assert b"".join(blobs.pieces(KEY)) == b"x"
    assert list(blobs.sizes()) == [KEY]
    assert everything(tmp_path / "large-disk") == [KEY]


def test_odd_things_in_the_folder_are_passed_over(blobs: BlobStore, root: Path) -> None:
    blobs.put(KEY, b"x")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nothing")
    (root / ".hidden").write_bytes(b"x")
    (root / ".git").mkdir()
    (root / ".git/1.safetensors").write_bytes(b"x")
    os.mkfifo(root / "pipe")
    (root / "inside").symlink_to(KEY)
    odd = os.fsdecode(b"\xff\n")
    (root / odd).write_bytes(b"odd")
    assert blobs.sizes() == {KEY: 1, "pipe": 0, "inside": 1, odd: 3}
    assert b"".join(blobs.pieces("inside")) == b"x"
    assert "to itself" in refused(lambda: list(blobs.pieces("loop")))
    for key in ("dangling", "pipe", "names"):  # a pipe is not waited for
        with pytest.raises(NotFound):
            list(blobs.pieces(key))
    with pytest.raises(InvalidInput):
        list(blobs.pieces(odd))
    assert blobs.sweep() == 0


@pytest.mark.parametrize("locked", ["names", "."])
def test_what_cannot_be_read_is_passed_over_where_that_is_asked(
    blobs: BlobStore, root: Path, locked: str
) -> None:
    blobs.put(KEY, b"x")
    blobs.put("plays/1.safetensors", b"x")
    with disks.unreadable_folder(root / locked):
        assert "permission denied" in refused(blobs.sizes)
        skipped: dict[str, str] = {}
        assert blobs.sizes(skipped=skipped) == ({} if locked == "." else {"plays/1.safetensors": 1})
        assert list(skipped) == [locked]
        assert "it cannot be read: permission denied" in skipped[locked]
        assert blobs.sweep() == 0


def test_a_file_where_a_folder_should_be(blobs: BlobStore) -> None:
    blobs.put("names", b"x")
    assert blobs.sizes("names") == {}
    with pytest.raises(CharloomError):
        blobs.put(KEY, b"x")
    with pytest.raises(CharloomError):
        list(blobs.pieces(KEY))
    assert list(blobs.sizes()) == ["names"]
    with pytest.raises(Conflict):
        blobs.put("names", b"y")


def test_leftovers_of_an_hour_ago_are_swept(blobs: BlobStore, root: Path) -> None:
    blobs.put(KEY, b"x")
    old, new = (root / "names" / f".{version}.safetensors.{'ab' * 16}.part" for version in (1, 2))
    like = root / "names" / ".notes.part"
    for path in (old, new, like):
        path.write_bytes(b"half")
    hours_ago = time.time() - 3 * 3600
    for path in (old, like, root / KEY):
        os.utime(path, (hours_ago, hours_ago))
    assert list(blobs.sizes()) == [KEY]
    assert blobs.sweep() == 1
    assert everything(root) == sorted([KEY, f"names/{new.name}", "names/.notes.part"])
    with pytest.raises(InvalidInput):
        list(blobs.pieces(f"names/{new.name}"))


def put_half(root: str) -> None:
    def half() -> Iterator[bytes]:
        yield CONTENT
        time.sleep(600)

    BlobStore(root).put(KEY, half())


def test_a_writer_that_was_killed_leaves_what_is_not_listed(blobs: BlobStore, root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=put_half, args=(str(root),), daemon=True)
    writer.start()
    while not everything(root):
        assert writer.is_alive()
        time.sleep(0.01)
    writer.kill()
    writer.join()
    (left,) = everything(root)
    assert left.endswith(".part")
    assert blobs.sizes() == {}
    blobs.put(KEY, b"again")
    assert list(blobs.sizes()) == [KEY]


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path / "disk") as disk:
        blobs = BlobStore(str(disk / "store"))
        blobs.put("small", b"x" * 1000)
        said = refused(lambda: blobs.put(KEY, iter([b"\1" * 100_000] * 90)))
        assert "free some space and try again" in said or "raise that limit" in said
        assert str(tmp_path) not in said
        assert everything(disk) == ["store/small"]
        assert list(blobs.sizes()) == ["small"]
        blobs.put(KEY, b"fits")
        assert list(blobs.sizes()) == [KEY, "small"]


def test_a_disk_without_room_for_a_byte(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path / "disk") as disk:
        blobs = BlobStore(str(disk / "store"))
        blobs.put("small", b"x" * 1000)
        disks.fill(disk)
        with pytest.raises(StorageFailed):
            blobs.put(KEY, b"\1" * (disks.FULL_DISK_SIZE + 1))
        assert list(blobs.sizes()) == ["small"]
        (disk / ".filling").unlink()
        blobs.put(KEY, b"fits now")


@pytest.mark.parametrize("limit", [0, 1, 4095, 4096, 8192, len(CONTENT) - 1])
def test_a_limit_on_files_at_any_byte(blobs: BlobStore, root: Path, limit: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert "raise that limit (ulimit -f)" in refused(lambda: blobs.put(KEY, CONTENT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert everything(root) == []
    blobs.put(KEY, CONTENT)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EIO, "does not answer; see the system's log"),
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk quota is used up; free some space"),
        (errno.EROFS, "the disk is read-only; mount it for writing"),
        (errno.EACCES, "permission denied; give Charloom's user access"),
        (errno.ENOENT, "there is no such store"),
    ],
)
def test_whichever_call_fails_a_file_is_whole_or_not_there(
    tmp_path: Path, number: int, says: str
) -> None:
    failed = list[str]()
    for nth in range(1, 1000):
        root = tmp_path / str(nth)
        blobs = BlobStore(str(root))
        error = None
        with disks.failing_call(nth, number) as failure:
            try:
                blobs.put(KEY, iter([CONTENT, CONTENT]))
            except StorageFailed as raised:
                error = raised
        if failure.call is None:
            break
        failed.append(failure.call)
        if error is None:
            assert list(blobs.sizes()) == [KEY], failure.call
        else:
            assert says in error.message or "did not read back" in error.message, failure.call
            assert everything(root) == [], failure.call
            blobs.put(KEY, iter([CONTENT, CONTENT]))
        assert b"".join(blobs.pieces(KEY)) == 2 * CONTENT
    assert {"mkdir", "open", "write", "flush", "fsync", "link", "unlink", "read"} <= set(failed)
    assert failed.count("fsync") == 4  # the folder of the store, its own, the file, the name


def test_whichever_call_fails_what_is_there_stays_and_is_listed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    blobs = BlobStore(str(root))
    for key in (KEY, "plays/1.safetensors", "plays/2.safetensors"):
        blobs.put(key, CONTENT)
    whole = blobs.sizes()
    for attempt in (blobs.sizes, lambda: blobs.put(KEY, b"x"), blobs.sweep):
        for nth in range(1, 1000):
            answer = None
            with (
                suppress(StorageFailed, Conflict),
                disks.failing_call(nth, errno.EIO) as failure,
            ):
                answer = attempt()
            if attempt == blobs.sizes:
                assert answer in (None, whole), failure.call
            assert {key: len(b"".join(blobs.pieces(key))) for key in whole} == whole
            assert everything(root) == sorted(whole)
            if failure.call is None:
                break


def test_a_removal_that_is_not_flushed_has_failed(
    blobs: BlobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash the file may be back, so it must not count as removed."""
    for key in ("a/1", "a/2", "b/1"):
        blobs.put(key, b"x")
    flush = os.fsync

    def failing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "a":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    done = blobs.remove(["a/1", "a/2", "b/1"])
    assert (done.removed, done.absent, list(done.failed)) == (["b/1"], [], ["a/1", "a/2"])


def test_a_file_system_without_links_is_used_all_the_same(tmp_path: Path) -> None:
    for nth in range(1, 1000):
        blobs = BlobStore(str(tmp_path / str(nth)))
        with disks.failing_call(nth, errno.EPERM) as failure:
            try:
                blobs.put(KEY, CONTENT)
            except StorageFailed:
                assert failure.call != "link"
        assert failure.call is not None
        if failure.call == "link":
            break
    assert b"".join(blobs.pieces(KEY)) == CONTENT
    assert everything(tmp_path / str(nth)) == [KEY]


def test_a_damaged_disk_is_noticed_when_reading_back(blobs: BlobStore, root: Path) -> None:
    def scribbled_on() -> Iterator[bytes]:
        yield CONTENT
        (part,) = root.rglob("*.part")
        with part.open("r+b") as file:
            file.write(b"\xff")

    with pytest.raises(StorageFailed, match="did not read back as it was written"):
        blobs.put(KEY, scribbled_on())
    assert everything(root) == []
    blobs.put(KEY, CONTENT)


def test_a_file_that_is_taken_away_while_it_is_read_back(blobs: BlobStore) -> None:
    for nth in range(1, 1000):
        with disks.failing_call(nth, errno.ENOENT) as failure:
            try:
                blobs.put(KEY, CONTENT)
            except StorageFailed as error:
                last = error.message
        blobs.delete(KEY)
        if failure.call is None:
            break
    assert "did not read back" in last
    assert blobs.sizes() == {}
