"""Register model files that were copied into the store by hand, and report what is wrong.

The counterpart of publishing: the file is there first, and its row follows. A file that must
go because its version was deleted is never registered again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.orm import Session

from ..database.session import Database
from ..errors import InvalidInput, NotFound, StorageFailed
from ..store.blobs import BlobStore
from ..store.card import Card
from ..store.layout import SUFFIX, model_key, parse_key
from ..store.model_file import check
from . import model_rows
from .deletions import Deletions
from .model_files import changed
from .model_rows import ModelVersion

_AT_ONCE: Final = 100  # new files registered in one transaction: each waits for the disk

Progress = Callable[[int, int], None]
"""Called with the numbers of files checked and of all files."""


@dataclass(frozen=True)
class Staged:
    """A whole, verified file in the store that has no row yet."""

    name: str
    version: int
    card: Card

    @property
    def key(self) -> str:
        return model_key(self.name, self.version)


@dataclass
class Synchronised:
    """What ``synchronise`` found: ids of new and of missing versions, and what it passed over.

    ``damaged`` maps the key of each file that is damaged or has a damaged row, and of each file
    or folder that cannot be read, to what is wrong with it.
    """

    added: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


class Synchronising:
    """Brings the rows of a database up to the files of a store."""

    def __init__(self, database: Database, blobs: BlobStore, deletions: Deletions) -> None:
        self._database = database
        self._blobs = blobs
        self._deletions = deletions

    def all(self, progress: Progress) -> Synchronised:
        """Register files that were copied in, and finish deletions.

        Never raises for a file, a folder or a row: what is missing, damaged or unreadable is
        reported, and its row stays. ``progress`` is called before each file; what it raises
        ends the work.
        """
        report = Synchronised()
        self._blobs.sweep()
        self._deletions.sweep()
        found = self._blobs.sizes(skipped=report.damaged)
        sizes = {key: size for key, size in found.items() if key.endswith(SUFFIX)}
        with self._database.session(read_only=True) as session:
            # Each statement may see what others have just changed: only a row that was there
            # before and after is damaged if it cannot be read.
            before = model_rows.keys(session)
            known = {each.key: each for each in model_rows.versions_of(session)}
            damaged_rows = (before & model_rows.keys(session)) - known.keys()
        gone = [
            each for key, each in known.items() if key not in sizes and not _in(key, report.damaged)
        ]
        report.damaged |= dict.fromkeys(sorted(damaged_rows), _DAMAGED_ROW)
        new: list[Staged] = []
        for done, (key, size) in enumerate(sizes.items()):
            progress(done, len(sizes))
            try:
                if key in known and known[key].size_bytes != size:
                    raise changed(known[key])
                if key not in known and key not in damaged_rows:
                    new.append(self.checked(key))
            except NotFound:  # removed after it was listed
                continue
            except (InvalidInput, StorageFailed) as error:
                report.damaged[key] = error.message
            if len(new) == _AT_ONCE:
                self.register(new, report)
                new = []
        self.register(new, report)
        report.missing = [each.id for each in gone]
        return report

    def checked(self, key: str) -> Staged:
        """The file with this key, whole and valid; raises InvalidInput, NotFound, StorageFailed."""
        place = parse_key(key)
        if place is None:
            raise InvalidInput(
                "A model file must be at models/NAME/VERSION.safetensors; VERSION is a number."
            )
        with self._blobs.open(key) as stream:
            return Staged(*place, check(stream).card)

    def register(self, files: list[Staged], report: Synchronised) -> None:
        """Register files under the names and numbers in their keys, in one transaction.

        A file that must go, or is gone, is left out.
        """
        if not files:
            return
        next_versions: dict[str, int] = {}
        for each in files:
            next_versions[each.name] = max(each.version + 1, next_versions.get(each.name, 0))
        added = []
        with self._database.session() as session:
            # This locks the names, so no deletion is decided between the check and the insert;
            # in one order, so that no two servers wait for each other.
            for name, number in sorted(next_versions.items()):
                model_rows.raise_next_version(session, name, number)
            for each in files:
                if self.must_go(session, each.key):
                    continue
                run_id = each.card.run_id
                if run_id is not None and model_rows.find_run(session, run_id):
                    run_id = None  # a copy of a version that is registered under another name
                model_rows.insert_found(session, described(each, run_id))
                added.append(f"{each.name}@{each.version}")
        report.added += added

    def must_go(self, session: Session, key: str) -> bool:
        """Whether a file without a row is what is left of a version that was deleted.

        In this order: an entry leaves the table only after its file.
        """
        return self._deletions.is_pending(session, key) or isinstance(
            self._blobs.stamps([key])[key], NotFound
        )


def described(staged: Staged, run_id: str | None) -> ModelVersion:
    card = staged.card
    assert card.sha256 is not None
    assert card.size_bytes is not None
    return ModelVersion(
        name=staged.name,
        version=staged.version,
        sha256=card.sha256,
        size_bytes=card.size_bytes,
        key=staged.key,
        created_at=card.created_at,
        card=card.summary(),
        run_id=run_id,
    )


def _in(key: str, skipped: Collection[str]) -> bool:
    """Whether a key is among those skipped, or in a folder that is; ``.`` is the whole store."""
    parts = key.split("/")
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return "." in skipped or any(each in skipped for each in above)


_DAMAGED_ROW: Final = (
    "its row in the database is damaged; delete that row (table model_versions), and the next "
    "start makes it anew from the file"
)
