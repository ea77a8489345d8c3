"""Datasets: texts stored unchanged, each described once, the same bytes stored once.

Takes a text in pieces or as a file, and a name; gives a ``Dataset``. The central invariant is
the same as for models: *file first, row second*; when deleting, the row first, with a note
that its file must go (``deletions``). A dataset's id is derived from its bytes and is the same
everywhere; the file's key is not, so deleting one upload can never delete the file of another.
Knows nothing of HTTP.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from ulid import ULID

from ..charlm.corpus.format import CorpusFormat
from ..database.dataset_tables import DatasetRow
from ..database.session import Database
from ..database.tables import new_ulid
from ..errors import CharloomError, Conflict, InvalidInput, NotFound, StorageFailed
from ..store.blobs import BlobStore, explained
from ..training.profile import Profile, describe
from . import dataset_rows
from .dataset_rows import Order
from .deletions import Deletions

__all__ = ["Dataset", "Datasets", "Upload", "checked_dataset_name", "dataset_id"]

NAME_LENGTH: Final = 200
DATA_FOLDER_GONE: Final = (
    "The data folder is gone, or could not be created; put it back or give Charloom access. "
    "CHARLOOM_DATA_DIR says where it is."
)
"""An upload does not create it: it may be a mount that comes back."""

_PIECE: Final = 1 << 20
_STALE_SECONDS: Final = 24 * 3600  # longer than any upload
_PREFIX, _SUFFIX = "upload-", ".part"
_ID: Final = re.compile(r"[0-9A-Z]{26}")
# Anything that fits in one line and is not a path: a name is only displayed.
_NAME: Final = re.compile(r"[^\s/\\](?:[^\x00-\x1f\x7f-\x9f\u2028\u2029/\\]*[^\s/\\])?")


@dataclass(frozen=True)
class Dataset:
    """One text, as described when it was uploaded; ``created_at`` is in milliseconds."""

    id: str
    name: str
    format: CorpusFormat
    sha256: str
    size_bytes: int
    characters: int
    records: int
    symbols: int
    profile: dict[str, Any]
    uri: str
    created_at: int

    @property
    def typical_length(self) -> int:
        """A length in characters that 95 in 100 records stay below.

        Profiles of the first datasets lack it; twice the mean is used instead.
        """
        known = self.profile.get("typical_length")
        return int(known or round(2 * self.characters / max(1, self.records)))


class Upload:
    """A text that is being uploaded, in a temporary file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.path = path
        self.size_bytes = 0

    def write(self, piece: bytes) -> None:
        """Append; raises StorageFailed when the disk is full."""
        with explained("The upload"):
            self._file.write(piece)
        self.size_bytes += len(piece)

    def flush(self) -> None:
        """Make everything written so far readable at ``path``."""
        with explained("The upload"):
            self._file.flush()


class Datasets:
    """Texts over a database and a store; safe to share between threads.

    ``scratch`` is the folder for incomplete uploads and other temporary files; by default the
    system's.
    """

    def __init__(self, database: Database, blobs: BlobStore, scratch: Path | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._scratch = scratch
        self.deletions = Deletions(database, blobs, "datasets")

    @contextmanager
    def receive(self) -> Iterator[Upload]:
        """An upload to write in pieces; pass it to ``keep`` within the block.

        Its file is removed after the block, also after an error. Raises StorageFailed.
        """
        with explained("The upload"):
            file = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below)
                dir=self.scratch_folder(), prefix=_PREFIX, suffix=_SUFFIX, delete=False
            )
        path = Path(file.name)
        try:
            yield Upload(file, path)  # type: ignore[arg-type]  # the wrapper is a BinaryIO in all but name
        finally:
            with suppress(OSError):  # the file is removed, so a failed flush does not matter
                file.close()
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def keep(
        self, upload: Upload, name: str, format: CorpusFormat | None = None
    ) -> tuple[Dataset, bool]:
        """Store an upload; returns the dataset and whether it is new. Raises like ``add``."""
        upload.flush()
        return self._take(upload.path, checked_dataset_name(name), format)

    def add(self, path: Path, name: str, format: CorpusFormat | None = None) -> Dataset:
        """Store a file; the same bytes give the existing dataset.

        ``format`` is guessed when None. Raises InvalidCorpus saying what is wrong with the
        text, InvalidInput for an invalid name, Conflict (dataset_format_differs) when the bytes
        are stored in the other format, NotFound when there is no such file, StorageFailed.
        """
        return self._take(path, checked_dataset_name(name), format)[0]

    def get(self, id: str) -> Dataset:
        """One dataset; raises NotFound (dataset_not_found)."""
        if not _ID.fullmatch(id):  # PostgreSQL rejects a string with a NUL
            raise dataset_rows.unknown_dataset(id)
        with self._database.session(read_only=True) as session:
            row = session.get(DatasetRow, id)
        if row is None:
            raise dataset_rows.unknown_dataset(id)
        return _dataset(row)

    def list(
        self, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> tuple[list[Dataset], bool]:
        """Datasets in order of creation, and whether there are more.

        ``after`` is the id of the previous page's last dataset; raises InvalidInput if no
        dataset has it.
        """
        with self._database.session(read_only=True) as session:
            rows = dataset_rows.page(session, after=after, limit=limit + 1, order=order)
        if rows is None:
            raise InvalidInput(
                f"There is no dataset {(after or '')[:80]!r} to continue after.", param="after"
            )
        return [_dataset(row) for row in rows[:limit]], len(rows) > limit

    def delete(self, id: str) -> None:
        """Delete a dataset; raises NotFound, and Conflict while a job needs it."""
        with self._database.session() as session:
            row = dataset_rows.locked(session, id)
            if row is None:
                raise dataset_rows.unknown_dataset(id)
            if dataset_rows.in_use(session, id):
                raise Conflict(
                    f"A job that is not finished needs the dataset {row.name!r}; "
                    "wait for it or cancel it.",
                    code="dataset_in_use",
                )
            session.delete(row)
            self.deletions.decide(session, [row.uri])
        self.deletions.finish([row.uri])

    @contextmanager
    def local(self, dataset: Dataset) -> Iterator[Path]:
        """The path of the dataset's file, valid within the block, for reading only.

        Raises StorageFailed (dataset_file_missing) when the file is not in the store now.
        """
        try:
            path = self._blobs.local_path(dataset.uri)
            if path is None:
                self._look_at(dataset)
        except NotFound as error:
            raise StorageFailed(
                f"The file of the dataset {dataset.name!r} is not in the store; mount or restore "
                "it, or upload the same text again.",
                code="dataset_file_missing",
            ) from error
        if path is not None:
            yield path
            return
        with tempfile.TemporaryDirectory(dir=self.scratch_folder()) as folder:
            copy = Path(folder) / "text"
            with explained("The text"), copy.open("wb") as file:
                for piece in self._blobs.pieces(dataset.uri):
                    file.write(piece)
            yield copy

    def sweep(self) -> int:
        """Finish deletions, and remove temporary files that a crashed server left behind.

        Returns the number of the latter.
        """
        self.deletions.sweep()
        swept = self._blobs.sweep()
        for path in [] if self._scratch is None else self._scratch.glob(f"{_PREFIX}*{_SUFFIX}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
                    swept += 1
        return swept

    def scratch_folder(self) -> Path | None:
        """The folder for temporary files, created if missing; None for the system's.

        The data folder around it is not: see ``DATA_FOLDER_GONE``. Raises StorageFailed.
        """
        if self._scratch is not None:
            with explained("A temporary file"):
                if not self._scratch.parent.is_dir():
                    raise StorageFailed(DATA_FOLDER_GONE)
                self._scratch.mkdir(exist_ok=True)
        return self._scratch

    def _take(self, path: Path, name: str, format: CorpusFormat | None) -> tuple[Dataset, bool]:
        profile = describe(path, format=format, scratch=self.scratch_folder())
        if before := self._known(profile, format):
            self._mend(before, path)
            return before, False
        uri = f"{new_ulid()}.txt"
        self._blobs.put(uri, _pieces(path))
        described = dataclasses.asdict(profile) | {"warnings": list(profile.warnings)}
        if not self._added(name, uri, described):
            # Another upload of the same bytes was a moment faster.
            self.deletions.finish([uri])
            before = self._known(profile, format)
            if before is None:
                raise Conflict("The same text was just deleted; send it again.")
            return before, False
        return self.get(dataset_id(profile.sha256)), True

    def _added(self, name: str, uri: str, described: dict[str, Any]) -> bool:
        """Insert the row of a stored file, or note that the file must go; False then.

        If that fails, removes the file.
        """
        new_id = dataset_id(described["sha256"])
        try:
            with self._database.session() as session:
                added = dataset_rows.add(
                    session, id=new_id, name=name, uri=uri, described=described
                )
                if not added:
                    self.deletions.decide(session, [uri])
                return added
        except BaseException:
            with suppress(StorageFailed):
                self._blobs.delete(uri)
            raise

    def _look_at(self, dataset: Dataset) -> None:
        """Raise NotFound if the dataset's file is not in the store."""
        for seen in self._blobs.stamps([dataset.uri]).values():
            if isinstance(seen, CharloomError):
                raise seen

    def _mend(self, dataset: Dataset, path: Path) -> None:
        """Restore a dataset's file if it was lost; ``path`` has the same bytes."""
        try:
            self._look_at(dataset)
        except NotFound:
            with suppress(Conflict):  # another server restored it
                self._blobs.put(dataset.uri, _pieces(path))

    def _known(self, profile: Profile, format: CorpusFormat | None) -> Dataset | None:
        with self._database.session(read_only=True) as session:
            row = dataset_rows.of_digest(session, profile.sha256)
        if row is None:
            return None
        if format is not None and row.format != format:
            raise Conflict(
                f"This text is already the dataset {row.name!r}, with format {row.format}; "
                f"delete that dataset to upload the text as {format}.",
                param="format",
                code="dataset_format_differs",
            )
        return _dataset(row)


def dataset_id(sha256: str) -> str:
    """The id of the text with this digest: 128 bits of it, written as a ULID."""
    return str(ULID.from_bytes(bytes.fromhex(sha256)[:16]))


def checked_dataset_name(name: str, *, param: str = "name") -> str:
    """``name`` if it is a valid dataset name; raises InvalidInput."""
    if len(name) > NAME_LENGTH or not _NAME.fullmatch(name) or not name.isprintable():
        raise InvalidInput(
            f"{name[:60]!a} cannot be a dataset's name: use 1 to {NAME_LENGTH} printable "
            "characters without slashes.",
            param=param,
            code="invalid_name",
        )
    return name


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _dataset(row: DatasetRow) -> Dataset:
    return Dataset(
        id=row.id,
        name=row.name,
        format="lines" if row.format == "lines" else "text",
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        characters=row.characters,
        records=row.records,
        symbols=row.profile["symbols"],
        profile=row.profile,
        uri=row.uri,
        created_at=row.created_at,
    )
