"""Stored files, in a folder and behind S3's interface: whole or not at all, never replaced."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalog.models import Registry
from app.database.session import Database
from app.errors import CharloomError, Conflict, InvalidInput, NotFound, StorageFailed
from app.store.artifact import write
from app.store.blobs import BlobStore
from app.store.seen import Stamp
from tests.models import tiny_artifact

KEY = "names/1.safetensors"


@pytest.fixture
def blobs(store_url: str) -> BlobStore:
    return BlobStore(store_url)


def content_of(blobs: BlobStore, key: str) -> bytes:
    return b"".join(blobs.pieces(key))


def test_what_is_put_is_there(blobs: BlobStore) -> None:
    assert blobs.sizes() == {}
    blob = blobs.put(KEY, b"whole")
    assert blob == (KEY, 5, hashlib.sha256(b"whole").hexdigest())
    assert content_of(blobs, KEY) == b"whole"
    with blobs.open(KEY) as stream:
        assert stream.seek(0, 2) == 5
        stream.seek(2)
        assert stream.read() == b"ole"
    pieces = (bytes([n]) * 100_000 for n in range(30))  # several reads long
    large = blobs.put("names/2.safetensors", pieces)
    assert large.size_bytes == 3_000_000
    assert hashlib.sha256(content_of(blobs, large.key)).hexdigest() == large.sha256
    assert blobs.put("empty", b"").size_bytes == 0
    assert content_of(blobs, "empty") == b""
    assert list(blobs.sizes().items()) == [
        ("empty", 0),
        (KEY, 5),
        ("names/2.safetensors", 3_000_000),
    ]


def test_one_folder_is_listed_and_not_its_namesakes(blobs: BlobStore) -> None:
    for key in ("ab/1", "a/1", "a/b/2", "a.b", "ft:a:b/1"):
        blobs.put(key, b"x")
    assert list(blobs.sizes("a")) == ["a/1", "a/b/2"]
    assert list(blobs.sizes("ft:a:b")) == ["ft:a:b/1"]
    assert blobs.sizes("nothing") == {}


def test_nothing_is_ever_replaced(blobs: BlobStore) -> None:
    blobs.put(KEY, b"first")
    with pytest.raises(Conflict, match=r"names/1\.safetensors is already in the store") as caught:
        blobs.put(KEY, b"second")
    assert caught.value.code == "file_exists"
    assert content_of(blobs, KEY) == b"first"
    assert list(blobs.sizes()) == [KEY]
    blobs.delete(KEY)
    blobs.put(KEY, b"second")
    assert content_of(blobs, KEY) == b"second"


def test_of_many_writers_one_wins(blobs: BlobStore) -> None:
    together, won, errors = threading.Barrier(6), list[int](), list[CharloomError]()

    def put(number: int) -> None:
        def pieces() -> Iterator[bytes]:
            together.wait()
            for _ in range(20):
                yield bytes([number]) * 5_000

        try:
            blobs.put(KEY, pieces())
            won.append(number)
        except CharloomError as error:
            errors.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [type(error) for error in errors] == [Conflict] * 5
    assert content_of(blobs, KEY) == bytes([won[0]]) * 100_000
    assert list(blobs.sizes()) == [KEY]


def test_a_source_that_breaks_off_leaves_nothing(blobs: BlobStore) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        blobs.put(KEY, breaking())
    assert blobs.sizes() == {}
    blobs.put(KEY, b"whole")
    assert content_of(blobs, KEY) == b"whole"


def test_what_is_not_there(blobs: BlobStore) -> None:
    blobs.put(KEY, b"x")
    for key in ("names/2.safetensors", "nobody/1", "names"):
        with pytest.raises(NotFound) as caught, blobs.open(key):
            pass
        assert caught.value.message == f"{key} is not in the store."
        assert caught.value.code == "file_not_found"
    blobs.delete("nobody/1")  # no error: it is gone
    blobs.delete(KEY)
    blobs.delete(KEY)
    assert blobs.sizes() == {}
    assert blobs.sweep() == 0


def test_files_are_looked_at_without_being_read(blobs: BlobStore) -> None:
    blobs.put(KEY, b"first")
    blobs.put("names/2.safetensors", b"longer")
    keys = [KEY, "names/2.safetensors", "names/3.safetensors", "names"]
    seen = blobs.stamps(keys)
    assert [type(each) for each in seen.values()] == [Stamp, Stamp, NotFound, NotFound]
    assert list(seen) == keys
    one, two = seen[KEY], seen["names/2.safetensors"]
    assert isinstance(one, Stamp)
    assert isinstance(two, Stamp)
    assert (one.size_bytes, two.size_bytes) == (5, 6)
    assert one.mark
    assert one.mark != two.mark
    assert blobs.stamps([KEY]) == {KEY: one}
    blobs.delete(KEY)
    blobs.put(KEY, b"other")
    assert blobs.stamps([KEY])[KEY] != one
    assert isinstance(blobs.stamps(["nobody/1"])["nobody/1"], NotFound)
    assert blobs.stamps([]) == {}


def test_what_became_of_each_file_that_is_removed_is_told(blobs: BlobStore) -> None:
    for number in range(3):
        blobs.put(f"a/{number}", b"x")
    blobs.put("b/1", b"x")
    done = blobs.remove(["a/0", "a/1", "a/9", "b/1", "nobody/1"])
    assert done == (["a/0", "a/1", "b/1"], ["a/9", "nobody/1"], {})
    assert list(blobs.sizes()) == ["a/2"]
    assert blobs.remove([]) == ([], [], {})


def test_a_local_path_is_given_where_there_is_one(blobs: BlobStore, store_url: str) -> None:
    blobs.put(KEY, b"x")
    expected = None if "://" in store_url else Path(store_url) / KEY
    assert blobs.local_path(KEY) == expected


ESCAPING = [
    "", "/", "..", "../a", "a/../../b", "a/..", "a//b", "/etc/passwd", "a/", "./a", ".a", "a/.b",
    "~/a", "-rf", "a\\..\\b", "C:\\a", "a\0b", "a\nb", "a\n", "a b", "é", "a/%2e%2e/b%", "a*",
    "a" * 201, "a/" * 8 + "a", "\ud800", "../../" * 20 + "etc/passwd", "file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("key", ESCAPING, ids=ascii)
def test_a_key_that_is_not_one_is_refused(blobs: BlobStore, tmp_path: Path, key: str) -> None:
    for attempt in (
        lambda: blobs.put(key, b"x"),
        lambda: list(blobs.pieces(key)),
        lambda: blobs.local_path(key),
        lambda: blobs.delete(key),
        lambda: blobs.sizes(key) if key else blobs.put(key, b"x"),
    ):
        with pytest.raises(InvalidInput) as caught:
            attempt()
        assert caught.value.message.isprintable()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=500, deadline=None)
@given(st.text() | st.from_regex(r"[a./\\%~:]{1,12}", fullmatch=True))
def test_a_key_never_leads_out(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    outer = tmp_path_factory.getbasetemp() / "keys"
    store = outer / "store"
    blobs = BlobStore(str(store))
    try:
        blobs.put(key, b"x")
    except InvalidInput:
        assert not outer.exists()
    except Conflict:
        raise AssertionError("another key's file") from None
    else:
        assert [path.name for path in outer.iterdir()] == ["store"]
        assert list(blobs.sizes()) == [key]
        blobs.delete(key)
        for folder in sorted(outer.rglob("*"), reverse=True):
            folder.rmdir()
        outer.rmdir()


@pytest.mark.parametrize("url", ["nowhere://x/y", "s4://bucket", "gs-not-here://x"])
def test_a_url_that_nothing_here_speaks(url: str) -> None:
    with pytest.raises(InvalidInput, match=f"The store {url.split(':')[0]}:// cannot be used"):
        BlobStore(url)


def test_a_folder_may_be_given_as_a_url(tmp_path: Path) -> None:
    BlobStore(f"file://{tmp_path}/store").put(KEY, b"x")
    assert (tmp_path / "store" / KEY).read_bytes() == b"x"


def test_a_bucket_that_is_not_there(bucket_url: str) -> None:
    blobs = BlobStore(bucket_url + "-else/models")
    with pytest.raises(StorageFailed, match="there is no such store; create its folder or bucket"):
        blobs.put(KEY, b"x")
    with pytest.raises(NotFound):
        list(blobs.pieces(KEY))


def test_an_object_store_that_is_gone(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    import s3fs

    # The client's own retries would take seconds; instances with other settings are kept apart.
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        blobs = BlobStore(bucket_url)
        for attempt in (
            lambda: blobs.put(KEY, b"x"),
            lambda: list(blobs.pieces(KEY)),
            blobs.sizes,
            lambda: blobs.delete(KEY),
        ):
            with pytest.raises(StorageFailed, match="does not answer") as caught:
                attempt()
            assert "127.0.0.1" not in caught.value.message
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_models_are_published_to_a_bucket(
    sqlite_database: Database, sqlite_url: str, bucket_url: str
) -> None:
    registry = Registry(sqlite_database, BlobStore(bucket_url))
    for seed in (1, 2):
        registry.publish("names", tiny_artifact(seed=seed))
    assert write(registry.open(registry.resolve("names@1"))) == write(tiny_artifact())
    assert b"".join(registry.fetch(registry.resolve("names@2"))) == write(tiny_artifact(seed=2))
    other = Database(sqlite_url + ".new")
    other.migrate()
    rebuilt = Registry(other, BlobStore(bucket_url))
    assert rebuilt.synchronise().added == ["names@1", "names@2"]
    rebuilt.delete("names")
    other.close()
    assert BlobStore(bucket_url).sizes() == {}


def test_placeholders_that_consoles_make_are_not_files(bucket_url: str) -> None:
    import fsspec

    system, bucket = fsspec.url_to_fs(bucket_url)
    for marker in ("models/", "models/names/"):
        system.call_s3("put_object", Bucket=bucket, Key=marker, Body=b"")
    blobs = BlobStore(f"{bucket_url}/models")
    blobs.put(KEY, b"x")
    assert blobs.sizes() == {KEY: 1}
    assert blobs.sizes("names") == {KEY: 1}
    assert BlobStore(bucket_url).sizes() == {f"models/{KEY}": 1}
