"""Datasets: texts kept as they came, each described once, the same bytes kept once.

Takes a file and a name, gives a ``Dataset``. The file goes to the store first,
its row second; deleting goes the other way round. Knows nothing of HTTP.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, select

from app.charlm.windows import CorpusFormat
from app.database.dataset_tables import DatasetRow
from app.database.session import Database
from app.database.tables import new_ulid, now_milliseconds
from app.datasets import prepare
from app.errors import NotFound
from app.store.blobs import BlobStore

_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Dataset:
    """One text as it was described when it came in; ``created_at`` in milliseconds."""

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


class Datasets:
    """Texts over a database and a store; safe to share between threads."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def add(self, path: Path, name: str, format: CorpusFormat | None = None) -> Dataset:
        """Take a file in; the same bytes give the dataset that they made before."""
        prepared = prepare(path, format=format)
        profile = prepared.profile
        with self._database.session(read_only=True) as session:
            known = session.scalar(select(DatasetRow.id).where(DatasetRow.sha256 == profile.sha256))
        if known is not None:
            return self.get(known)
        dataset_id = new_ulid()
        uri = f"{dataset_id}.txt"
        with path.open("rb") as file:
            self._blobs.put(uri, iter(lambda: file.read(_PIECE), b""))
        told = dataclasses.asdict(profile) | {"typical_length": prepared.corpus.typical_length}
        with self._database.session() as session:
            session.execute(
                insert(DatasetRow).values(
                    id=dataset_id,
                    name=name,
                    format=profile.format,
                    sha256=profile.sha256,
                    size_bytes=profile.bytes,
                    characters=profile.characters,
                    records=profile.records,
                    profile=told | {"warnings": list(profile.warnings)},
                    uri=uri,
                    created_at=now_milliseconds(),
                )
            )
        return self.get(dataset_id)

    def get(self, id: str) -> Dataset:
        """One dataset; raises NotFound."""
        with self._database.session(read_only=True) as session:
            row = session.get(DatasetRow, id)
        if row is None:
            raise NotFound(
                f"There is no dataset {id[:80]!r}.", code="dataset_not_found", param="dataset"
            )
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

    @contextmanager
    def local(self, dataset: Dataset) -> Iterator[Path]:
        """A readable local copy of the file, there as long as the block runs."""
        with tempfile.TemporaryDirectory() as folder, self._blobs.open(dataset.uri) as stream:
            path = Path(folder) / "text"
            with path.open("wb") as file:
                while piece := stream.read(_PIECE):
                    file.write(piece)
            yield path
