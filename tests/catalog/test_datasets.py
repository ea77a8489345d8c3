"""Datasets over a real store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.catalog.datasets import Dataset, Datasets, dataset_id
from app.database.session import Database
from app.errors import Conflict, InvalidCorpus, InvalidInput, NotFound, StorageFailed
from app.store.blobs import BlobStore
from app.training.prepare import _reserve
from tests.jobs.making import WORDS, make_place

TEXT = "\n".join(WORDS).encode()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def datasets(database: Database, tmp_path: Path, scratch: Path) -> Datasets:
    return Datasets(database, BlobStore(str(tmp_path / "datasets")), scratch)


def upload(datasets: Datasets, text: bytes = TEXT, name: str = "words") -> tuple[Dataset, bool]:
    with datasets.receive() as upload:
        for place in range(0, len(text), 100):
            upload.write(text[place : place + 100])
        return datasets.keep(upload, name)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_text_comes_in_is_described_and_can_be_read(
    datasets: Datasets, tmp_path: Path, scratch: Path
) -> None:
    dataset, new = upload(datasets)
    assert new
    assert (dataset.name, dataset.format, dataset.size_bytes) == ("words", "lines", len(TEXT))
    assert dataset.sha256 == hashlib.sha256(TEXT).hexdigest()
    assert dataset.id == dataset_id(dataset.sha256)
    assert dataset.records == dataset.profile["distinct_records"] == len(WORDS)
    assert dataset.symbols == len(set("".join(WORDS)))
    assert datasets.get(dataset.id) == dataset
    with datasets.local(dataset) as path:
        assert path.read_bytes() == TEXT
    assert files(tmp_path / "datasets") == [dataset.uri]
    assert files(scratch) == []


def test_the_same_bytes_are_the_same_dataset(datasets: Datasets, tmp_path: Path) -> None:
    first, _ = upload(datasets)
    assert upload(datasets, name="other") == (first, False)
    assert files(tmp_path / "datasets") == [first.uri]
    assert datasets.list() == ([first], False)


def test_the_same_bytes_from_many_at_once(datasets: Datasets, tmp_path: Path) -> None:
    came: list[tuple[Dataset, bool]] = []
    together = threading.Barrier(6)

    def send(number: int) -> None:
        together.wait()
        came.append(upload(datasets, name=f"words {number}"))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(new for _, new in came) == 1
    assert len({dataset.id for dataset, _ in came}) == 1
    assert files(tmp_path / "datasets") == [came[0][0].uri]


def test_another_format_of_the_same_text_is_refused(datasets: Datasets, tmp_path: Path) -> None:
    source = tmp_path / "words.txt"
    source.write_bytes(TEXT)
    lines = datasets.add(source, "words", "lines")
    with pytest.raises(Conflict) as refused:
        datasets.add(source, "words", "text")
    assert refused.value.code == "dataset_format_differs"
    datasets.delete(lines.id)
    assert datasets.add(source, "words", "text").format == "text"


def test_a_lost_file_comes_back_with_the_next_upload(datasets: Datasets, tmp_path: Path) -> None:
    dataset, _ = upload(datasets)
    (tmp_path / "datasets" / dataset.uri).unlink()
    with pytest.raises(StorageFailed) as missing, datasets.local(dataset):
        raise AssertionError
    assert missing.value.code == "dataset_file_missing"
    assert upload(datasets) == (dataset, False)
    with datasets.local(dataset) as path:
        assert path.read_bytes() == TEXT


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_one_another(datasets: Datasets, order: str) -> None:
    came = [upload(datasets, TEXT + f"\nx{number}".encode())[0] for number in range(5)]
    wanted = came if order == "asc" else came[::-1]
    found, after = [], None
    while True:
        page, more = datasets.list(after=after, limit=2, order="asc" if order == "asc" else "desc")
        found += page
        after = page[-1].id
        if not more:
            break
    assert [each.id for each in found] == [each.id for each in wanted]


def test_a_page_after_nothing_is_refused(datasets: Datasets) -> None:
    with pytest.raises(InvalidInput) as refused:
        datasets.list(after="nothing")
    assert refused.value.param == "after"


@pytest.mark.parametrize(
    ("text", "code"),
    [(b"", "empty_text"), (b"abc\xff", "invalid_utf8"), (b"a\0b\nc", "nul_in_text"),
     ("abc\nd".encode("utf-16-le"), "nul_in_text")],
)  # fmt: skip
def test_what_is_no_text_leaves_nothing(
    datasets: Datasets, tmp_path: Path, scratch: Path, text: bytes, code: str
) -> None:
    with pytest.raises(InvalidCorpus) as refused:
        upload(datasets, text)
    assert refused.value.code == code
    assert files(tmp_path / "datasets") == files(scratch) == []
    assert datasets.list() == ([], False)


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "..\\x", "a\nb", "a\0", "x" * 201, "a\u202eb", "\ud800", " a"]
)
def test_a_name_is_one_printable_line(datasets: Datasets, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        upload(datasets, name=name)
    assert refused.value.param == "name"


@pytest.mark.parametrize("name", ["a", "Träume, 2. Teil", "词", "x" * 200, "a..b", "😀"])
def test_names_are_for_people(datasets: Datasets, name: str) -> None:
    assert upload(datasets, name=name)[0].name == name


def test_deleted_is_gone(datasets: Datasets, tmp_path: Path) -> None:
    dataset, _ = upload(datasets)
    datasets.delete(dataset.id)
    assert files(tmp_path / "datasets") == []
    for look in (lambda: datasets.get(dataset.id), lambda: datasets.delete(dataset.id)):
        with pytest.raises(NotFound) as missing:
            look()
        assert missing.value.code == "dataset_not_found"
    again, new = upload(datasets)
    assert (again.id, new) == (dataset.id, True)
    assert again.uri != dataset.uri  # so a late delete of the first cannot take this file


def test_a_dataset_in_use_stays(database: Database, tmp_path: Path) -> None:
    place = make_place(database, tmp_path)
    job = place.submitted()
    with pytest.raises(Conflict) as refused:
        place.datasets.delete(place.dataset.id)
    assert refused.value.code == "dataset_in_use"
    with place.datasets.local(place.dataset) as path:
        assert path.exists()
    place.jobs.cancel(job.id)
    place.datasets.delete(place.dataset.id)
    told = place.jobs.get(job.id)  # what was asked for is still told
    assert told.spec["dataset"] == f"ds_{place.dataset.id}"


def test_a_job_and_a_delete_at_once(database: Database, tmp_path: Path) -> None:
    """Either the job needs the dataset or the dataset is gone; never both."""
    place = make_place(database, tmp_path)
    words = tmp_path / "words.txt"
    for _ in range(10):
        dataset = place.datasets.add(words, "words", "lines")
        outcomes: dict[str, object] = {}
        together = threading.Barrier(2)

        def submit(into: dict[str, object] = outcomes, gate: threading.Barrier = together) -> None:
            gate.wait()
            try:
                into["job"] = place.submitted().id
            except NotFound as error:
                into["refused"] = error.code

        thread = threading.Thread(target=submit)
        thread.start()
        together.wait()
        try:
            place.datasets.delete(dataset.id)
            outcomes["deleted"] = True
        except Conflict:
            pass
        thread.join()
        assert ("job" in outcomes) != ("deleted" in outcomes), outcomes
        assert outcomes.get("refused") in (None, "dataset_not_found")
        if "job" in outcomes:
            place.jobs.cancel(str(outcomes["job"]))


class _Interrupted(Exception):
    pass


def test_an_upload_that_is_broken_off_leaves_nothing(datasets: Datasets, scratch: Path) -> None:
    def broken_off() -> None:
        with datasets.receive() as upload:
            upload.write(b"half a te")
            raise _Interrupted

    with pytest.raises(_Interrupted):
        broken_off()
    assert files(scratch) == []


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """A file that grows larger is refused by the system, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_no_room_for_the_upload(datasets: Datasets, tmp_path: Path, scratch: Path) -> None:
    upload(datasets)
    with files_of_at_most(1 << 20), pytest.raises(StorageFailed):
        upload(datasets, b"a b c\n" * 300_000)
    assert files(scratch) == []
    assert len(files(tmp_path / "datasets")) == len(datasets.list()[0]) == 1


def test_no_room_for_the_kept_file(datasets: Datasets, tmp_path: Path, scratch: Path) -> None:
    text = b"a b c\n" * 300_000 + TEXT
    upload(datasets)
    with datasets.receive() as late:
        late.write(text)
        late.flush()
        with files_of_at_most(1 << 20), pytest.raises(StorageFailed):
            datasets.keep(late, "words")
    assert files(scratch) == []
    assert len(files(tmp_path / "datasets")) == len(datasets.list()[0]) == 1


def test_no_room_for_the_ids_of_a_large_text(tmp_path: Path) -> None:
    """Mapping a file without room for it would end the whole program."""
    with (
        (tmp_path / "ids").open("wb") as file,
        files_of_at_most(1 << 20),
        pytest.raises(StorageFailed, match="2 MB are needed"),
    ):
        _reserve(file.fileno(), 1 << 21)


def test_a_disk_that_fails_at_any_write(
    datasets: Datasets, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync
    for failing in range(1, 4):
        calls = 0

        def full(descriptor: int, failing: int = failing) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        try:
            dataset, _ = upload(datasets)
        except StorageFailed:
            assert datasets.list() == ([], False)
            continue
        assert calls < failing
        with datasets.local(dataset) as path:
            assert path.read_bytes() == TEXT
    assert files(scratch) == []


def test_what_a_dead_server_left_is_swept(datasets: Datasets, scratch: Path) -> None:
    scratch.mkdir()
    old, young, other = (
        scratch / "upload-1.part",
        scratch / "upload-2.part",
        scratch / "precious.txt",
    )
    for path in (old, young, other):
        path.write_text("x")
    for path in (old, other):
        os.utime(path, (time.time() - 100_000,) * 2)
    assert datasets.sweep() == 1
    assert files(scratch) == ["precious.txt", "upload-2.part"]


def test_from_an_object_store_too(sqlite_database: Database, tmp_path: Path) -> None:
    datasets = Datasets(sqlite_database, BlobStore(f"memory://{tmp_path.name}"))
    dataset, _ = upload(datasets)
    with datasets.local(dataset) as path:
        assert path.read_bytes() == TEXT
    assert not path.exists()
    datasets.delete(dataset.id)
    with pytest.raises(StorageFailed) as missing, datasets.local(dataset):
        raise AssertionError
    assert missing.value.code == "dataset_file_missing"
