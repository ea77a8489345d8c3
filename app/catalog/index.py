"""The index of models: names, versions 1, 2, 3…, and aliases.

The store has the files and is the source of truth; the database records what was found there,
and the aliases. The central invariant: *store first, row second*, and the reverse when
deleting. So a row never points at a missing file, a crash leaves either no version or a whole
one, and a new database is filled from the store (``synchronise``).

Knows files, but no network: ``models`` reads and writes artifacts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..database.session import Database
from ..errors import Conflict, InvalidArtifact, InvalidInput, NotFound, StorageFailed, UnknownModel
from ..store.blobs import BlobStore
from ..store.card import Card
from ..store.layout import (
    SUFFIX,
    checked_alias,
    is_alias,
    is_name,
    model_key,
    parse_key,
    version_number,
)
from ..store.model_file import check
from . import model_rows
from .model_rows import ModelVersion, Order

_PIECE: Final = 1 << 20

ModelVersions = list[ModelVersion]
Names = list[str]


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
    """What ``synchronise`` found: ids of new and of missing versions, and damaged files.

    ``damaged`` maps the key of each damaged file to what is wrong with it.
    """

    added: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


class ModelIndex:
    """Names, versions and aliases over a database and a store; safe to share between threads."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def resolve(self, reference: str) -> ModelVersion:
        """The version that ``names`` (its newest), ``names@3`` or ``names@production`` means.

        Raises UnknownModel, listing the known models.
        """
        with self._database.session(read_only=True) as session:
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
            found = None
            if after is None or is_name(after):
                found = model_rows.newest_page(session, after=after, limit=limit + 1, order=order)
        if found is None:
            raise _not_in_list(after)
        return found[:limit], len(found) > limit

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
            found = model_rows.version_page(
                session, name, after=number, limit=limit + 1, order=order
            )
        if found is None:
            raise _not_in_list(after)
        return found[:limit], len(found) > limit

    def names(self) -> Names:
        """The first names, by name: for a message, or to see whether there is only one."""
        with self._database.session(read_only=True) as session:
            return model_rows.known_names(session)

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Point ``name@alias`` at a version; raises UnknownModel, InvalidInput, Conflict."""
        checked_alias(alias)
        found = self.resolve(f"{name}@{version}")
        try:
            with self._database.session() as session:
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

    def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias; raises NotFound."""
        self.versions(name)
        checked_alias(alias)
        with self._database.session() as session:
            if not model_rows.remove_aliases(session, name, alias=alias):
                raise NotFound(f"{name} has no alias {alias}.", code="alias_not_found")

    def delete_version(self, name: str, version: int) -> None:
        """Delete one version; raises Conflict while an alias names it, and UnknownModel."""
        found = self.resolve(f"{name}@{version}")
        naming = sorted(alias for alias, named in found.aliases.items() if named == version)
        if naming:
            raise _alias_in_use(found.id, naming[0])
        try:
            with self._database.session() as session:
                model_rows.remove_version(session, name, version)
        except IntegrityError as error:  # an alias was set after the check
            raise _alias_in_use(found.id, "new") from error
        self._blobs.delete(found.key)

    def delete(self, name: str) -> None:
        """Delete a model: all its versions and aliases; raises UnknownModel."""
        found = self.versions(name)
        with self._database.session() as session:
            model_rows.remove_aliases(session, name)
            for each in found:
                model_rows.remove_version(session, name, each.version)
        for each in found:
            self._blobs.delete(each.key)

    def fetch(self, version: ModelVersion) -> Iterator[bytes]:
        """The file of a version in pieces.

        If the file is not the one that was published, raises InvalidArtifact instead of
        yielding the last piece, so what was yielded is too short.
        """
        digest, held = hashlib.sha256(), b""
        with self._blobs.open(version.key) as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                if held:
                    yield held
                held = piece
        if digest.hexdigest() != version.sha256:
            raise changed(version)
        yield held

    def synchronise(self) -> Synchronised:
        """Register files that were copied in; delete the rows of versions whose file is gone.

        Never raises for a file: damaged ones are reported. If the store has no models at all
        (a volume that is not mounted), no row is deleted.
        """
        report = Synchronised()
        self._blobs.sweep()
        sizes = {key: size for key, size in self._blobs.sizes().items() if key.endswith(SUFFIX)}
        with self._database.session(read_only=True) as session:
            known = {each.key: each for each in model_rows.versions_of(session)}
        for key, size in sizes.items():
            try:
                if key not in known:
                    report.added.append(self._adopt(key))
                elif known[key].size_bytes != size:
                    raise changed(known[key])
            except (InvalidInput, NotFound, StorageFailed) as error:
                report.damaged[key] = error.message
        report.missing = [each.id for key, each in known.items() if key not in sizes]
        if sizes:
            self._forget([each for key, each in known.items() if key not in sizes])
        return report

    def _adopt(self, key: str) -> str:
        """Register a file under the name and number in its key; returns the version's id."""
        place = parse_key(key)
        if place is None:
            raise InvalidInput(
                "A model file must be at models/NAME/VERSION.safetensors; VERSION is a number."
            )
        name, number = place
        with self._blobs.open(key) as stream:
            staged = Staged(name, number, check(stream).card)
        with self._database.session() as session:
            model_rows.raise_next_version(session, name, number + 1)
            run_id = staged.card.run_id
            if run_id is not None and model_rows.find_run(session, run_id):
                run_id = None  # a copy of a version that is registered under another name
            model_rows.insert_version(session, described(staged, run_id))
        return f"{name}@{number}"

    def _forget(self, gone: ModelVersions) -> None:
        with self._database.session() as session:
            for each in gone:
                model_rows.remove_aliases(session, each.name, version=each.version)
                model_rows.remove_version(session, each.name, each.version)

    def _versions_in_store(self, name: str) -> list[int]:
        places = map(parse_key, self._blobs.sizes(name))
        return [place[1] for place in places if place is not None]

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


def _unknown(session: Session, reference: str) -> NoReturn:
    there = ", ".join(model_rows.known_names(session)) or "none yet"
    raise UnknownModel(
        f"There is no model {reference[:100]!r}. Models here: {there}.", param="model"
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


def changed(version: ModelVersion) -> InvalidArtifact:
    return InvalidArtifact(
        f"The file of {version.id} is not the one that was published; restore that file, "
        "or delete this version and publish again."
    )
