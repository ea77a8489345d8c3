"""The index of models: names, versions 1, 2, 3…, and aliases.

The store has the files; the database records what was found there, and the aliases. The
invariants:

- *Publishing: store first, row second.* A crash leaves either no version or a whole one, and a
  new database is filled from the store (``synchronise``).
- *Deleting: database first, file later.* The transaction that removes a row notes its file as
  to be removed (``deletions``). Such a file is never registered again.
- *A file that is absent is told, not forgotten.* Its row and aliases stay, and what one server
  sees is not written for all (``model_files``).
- *Nothing is written into a store that has none of the known files*: it may be a folder whose
  disk is mounted later (``check_store``).

Knows files, but no network: ``models`` reads and writes artifacts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..database.session import Database
from ..errors import CharloomError, Conflict, InvalidInput, NotFound, StorageFailed, UnknownModel
from ..store.blobs import BlobStore
from ..store.layout import (
    checked_alias,
    is_alias,
    is_name,
    parse_key,
    version_number,
)
from . import model_rows
from .deletions import Deletions
from .model_files import ModelFiles
from .model_rows import ModelVersion, Order
from .synchronising import Progress, Synchronised, Synchronising

ModelVersions = list[ModelVersion]


class ModelIndex:
    """Names, versions and aliases over a database and a store; safe to share between threads."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._files = ModelFiles(blobs)
        self.deletions = Deletions(database, blobs, "models")
        self.synchronising = Synchronising(database, blobs, self.deletions)

    def resolve(self, reference: str | None) -> ModelVersion:
        """The version that ``names`` (its newest), ``names@3`` or ``names@production`` means.

        None means the newest version of the only model. The newest is meant even if its file is
        missing: to use it is then an error, never silently another version. Raises
        UnknownModel, listing the known models, and InvalidInput if None could mean several.
        """
        with self._database.session(read_only=True) as session:
            if reference is None:
                reference = _only(model_rows.known_names(session))
            name, version = _meant(session, reference)
            found = model_rows.find_version(session, name, version) if version else None
            return found or _unknown(session, reference)

    def versions(self, name: str) -> ModelVersions:
        """Every version of a model, newest first; raises UnknownModel."""
        with self._database.session(read_only=True) as session:
            found = model_rows.versions_of(session, name) if is_name(name) else []
            return found or _unknown(session, name)

    def newest_page(
        self, *, after: str | None = None, limit: int = 100, order: Order = "asc"
    ) -> tuple[ModelVersions, bool]:
        """The newest version of each model, by name, and whether there are more.

        ``after`` is the last name of the page before; raises InvalidInput if there is none.
        """
        with self._database.session(read_only=True) as session:
            page = None
            if after is None or is_name(after):
                page = model_rows.newest_page(session, after=after, limit=limit, order=order)
        if page is None:
            raise _not_in_list(after)
        return page

    def version_page(
        self, name: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> tuple[ModelVersions, bool]:
        """Versions of a model by number, and whether there are more.

        ``after`` is the last id of the page before. Raises UnknownModel, InvalidInput.
        """
        number = None
        if after is not None:
            of, _, selector = after.partition("@")
            number = version_number(selector) if of == name else None
            if number is None:
                raise _not_in_list(after)
        with self._database.session(read_only=True) as session:
            if not is_name(name) or model_rows.newest_version(session, name) is None:
                _unknown(session, name)
            page = model_rows.version_page(session, name, after=number, limit=limit, order=order)
        if page is None:
            raise _not_in_list(after)
        return page

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Point ``name@alias`` at a version; raises UnknownModel, InvalidInput, Conflict."""
        checked_alias(alias)
        found = self.resolve(f"{name}@{version}")
        try:
            with self._database.session() as session:
                model_rows.lock_name(session, name)  # no deletion between the look and the alias
                if not model_rows.has_room_for_alias(session, name, alias):
                    raise Conflict(
                        f"{name} has {model_rows.MOST_ALIASES:,} aliases, as many as a model may "
                        "have; delete one that is no longer used.",
                        code="too_many_aliases",
                    )
                model_rows.put_alias(session, name, alias, version)
        except IntegrityError as error:
            raise Conflict(f"{found.id} has just been deleted.", code="version_deleted") from error
        return self.resolve(found.id)

    def delete_alias(self, name: str, alias: str) -> int:
        """Delete an alias; returns the version that it named. Raises NotFound."""
        self.versions(name)
        checked_alias(alias)
        with self._database.session() as session:
            removed = model_rows.remove_aliases(session, name, alias=alias)
            if not removed:
                raise NotFound(f"{name} has no alias {alias}.", code="alias_not_found")
            return removed[0][1]

    def delete_version(self, name: str, version: int) -> None:
        """Delete one version; raises Conflict while an alias names it, and UnknownModel."""
        found = self.resolve(f"{name}@{version}")
        naming = sorted(alias for alias, named in found.aliases.items() if named == version)
        if naming:
            raise _alias_in_use(found.id, naming[0])
        try:
            self._delete(name, version)
        except IntegrityError as error:  # an alias was set after the check
            raise _alias_in_use(found.id, "new") from error

    def delete(self, name: str) -> None:
        """Delete a model: all its versions and aliases; raises UnknownModel."""
        self.versions(name)
        self._delete(name)

    def _delete(self, name: str, version: int | None = None) -> None:
        """Delete one version, or all with their aliases; the files go now or later."""
        with self._database.session() as session:
            model_rows.lock_name(session, name)
            if version is None:
                model_rows.remove_aliases(session, name)
            gone = model_rows.remove_versions(session, name, version)
            self.deletions.decide(session, gone)
        self.deletions.finish(gone)

    def looked_at(self, versions: Sequence[ModelVersion]) -> ModelVersions:
        """The versions with the status of their files, as this process sees them now."""
        return self._files.looked_at(versions)

    def require(self, version: ModelVersion) -> None:
        """Raise unless the version's file is there and not known to be damaged.

        Raises Overloaded (model_file_missing), StorageFailed (damaged_model or another).
        """
        self._files.require(version)

    def verify(self, version: ModelVersion) -> None:
        """Read the version's whole file; raises what ``require`` raises unless it is right."""
        self._files.verify(version)

    def fetch(self, version: ModelVersion) -> Iterator[bytes]:
        """The file of a version in pieces, from one open file that was verified before.

        Raises what ``verify`` raises, before it returns. If the file is changed after that, the
        iterator raises StorageFailed instead of yielding the last piece.
        """
        return self._files.fetch(version)

    def check_store(self) -> None:
        """Raise StorageFailed unless the store can be read and has a file that is known.

        One without any is empty, gone or another store; its code is ``store_empty``. A store
        may be empty while no version is known.
        """
        with self._database.session(read_only=True) as session:
            latest = model_rows.latest_key(session)
        if latest is None:
            self._blobs.sizes("readyz")  # an empty prefix: an object store answers at once
            return
        seen = self._blobs.stamps([latest])[latest]
        if isinstance(seen, CharloomError) and self._has_nothing():
            raise StorageFailed(
                "The model store has none of the model files that the database knows, so nothing "
                "is stored in it. Mount or restore it (CHARLOOM_MODELS_DIR says where it is), or "
                "delete these models.",
                code="store_empty",
            )

    def _has_nothing(self) -> bool:
        """Whether none of the known files is there; raises StorageFailed if none can be looked at.

        A folder that cannot be read is passed over: the other models are served.
        """
        skipped: dict[str, str] = {}
        there = self._blobs.sizes(skipped=skipped).keys()
        if "." in skipped:
            raise StorageFailed(f"The model store cannot be used: {skipped['.']}.")
        with self._database.session(read_only=True) as session:
            return not skipped and there.isdisjoint(model_rows.keys(session))

    def synchronise(self, progress: Progress = lambda _done, _of: None) -> Synchronised:
        """Register files that were copied in, and finish deletions (see ``synchronising``)."""
        return self.synchronising.all(progress)

    def _versions_in_store(self, name: str) -> list[int]:
        places = map(parse_key, self._blobs.sizes(name))
        return [place[1] for place in places if place is not None]

    def every_version(self) -> ModelVersions:
        """Every version of every model, by name, newest first."""
        with self._database.session(read_only=True) as session:
            return model_rows.versions_of(session)

    def list(self) -> ModelVersions:
        """The newest version of every model, by name."""
        with self._database.session(read_only=True) as session:
            return model_rows.newest_of_all(session)


def _meant(session: Session, reference: str) -> tuple[str, int | None]:
    """The name and version number that a reference means."""
    name, at, selector = reference.partition("@")
    if not is_name(name):
        return name, None
    if not at:
        return name, model_rows.newest_version(session, name)
    if is_alias(selector):
        return name, model_rows.aliased_version(session, name, selector)
    return name, version_number(selector)


def _only(names: Sequence[str]) -> str:
    if len(names) != 1:
        known = f": {', '.join(names)}" if names else "; there is none yet"
        raise InvalidInput(f"Name a model{known}.", param="model", code="missing")
    return names[0]


def _unknown(session: Session, reference: str) -> NoReturn:
    there = ", ".join(model_rows.known_names(session)) or "none yet"
    raise UnknownModel(
        f"There is no model {reference[:100]!r}. Models here: {there}.", param="model"
    )


def _not_in_list(after: str | None) -> InvalidInput:
    return InvalidInput(
        f"after must be an id in this list; {(after or '')[:100]!r} is not.", param="after"
    )


def _alias_in_use(model_id: str, alias: str) -> Conflict:
    return Conflict(
        f"The alias {alias!r} points to {model_id}. First point it at another version, or delete "
        "it.",
        code="alias_in_use",
    )
