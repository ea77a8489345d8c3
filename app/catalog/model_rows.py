"""Every SQL statement about models, versions and aliases.

Takes a session (one transaction, begun and ended by the caller); gives ``ModelVersion``
values. The same statements run on SQLite and PostgreSQL, and the database resolves races
between servers: one UPDATE assigns numbers, and a row is inserted unless it exists.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, TypeVarTuple

from sqlalchemy import Select, case, delete, func, select, update
from sqlalchemy.orm import Session

from ..database.model_tables import ModelAliasRow, ModelRow, ModelVersionRow
from ..database.tables import now_milliseconds
from ..database.upserts import insert_or_leave

#: Aliases of one model: what an answer holds of them has an end.
MOST_ALIASES: Final = 1_000
_SHOWN: Final = 20
_FEW: Final = 200

Order = Literal["asc", "desc"]
Columns = TypeVarTuple("Columns")
A = TypeVar("A", str, int)

Status = Literal["available", "missing", "damaged"]


@dataclass(frozen=True)
class ModelVersion:
    """One published model; ``card`` is ``Card.summary()``, ``created_at`` Unix seconds.

    ``key`` is the file's key in the store; ``aliases`` maps all aliases of the model to versions.
    ``status`` is what this process saw of the file when it looked (``model_files``), and
    ``status_reason`` a sentence unless it is available; the database knows neither.
    """

    name: str
    version: int
    sha256: str
    size_bytes: int
    key: str
    created_at: int
    card: dict[str, Any]
    run_id: str | None = None
    aliases: dict[str, int] = field(default_factory=dict)
    status: Status = "available"
    status_reason: str | None = None

    @property
    def id(self) -> str:
        """``names@3``."""
        return f"{self.name}@{self.version}"


Page = tuple[list[ModelVersion], bool]
"""Some versions, and whether there are more."""


def reserve_version(session: Session, name: str, at_least: int) -> int:
    """The next free version number of ``name``; it is never assigned again."""
    raise_next_version(session, name, at_least)
    reserve = (
        update(ModelRow)
        .where(ModelRow.name == name)
        .values(next_version=ModelRow.next_version + 1)
        .returning(ModelRow.next_version)
    )
    return session.execute(reserve).scalar_one() - 1


def raise_next_version(session: Session, name: str, at_least: int) -> None:
    """Make sure that ``name`` has a row and that no number below ``at_least`` is assigned."""
    values = {"name": name, "next_version": at_least, "created_at": now_milliseconds()}
    insert_or_leave(session, ModelRow, **values)
    higher = case((ModelRow.next_version < at_least, at_least), else_=ModelRow.next_version)
    session.execute(update(ModelRow).where(ModelRow.name == name).values(next_version=higher))


def insert_version(session: Session, version: ModelVersion) -> ModelVersion:
    """Insert a version, or return the existing one with its number or its run.

    So publishing the same file twice is harmless.
    """
    insert_found(session, version)
    found = find_version(session, version.name, version.version)
    if found is None and version.run_id is not None:
        found = find_run(session, version.run_id)
    assert found is not None, "neither inserted nor found"
    return found


def insert_found(session: Session, version: ModelVersion) -> None:
    """Insert a version, unless there is one with its number or its run."""
    values = {
        "model_name": version.name,
        "version": version.version,
        "run_id": version.run_id,
        "sha256": version.sha256,
        "uri": version.key,
        "card": version.card,
        "created_at": version.created_at * 1000,
    }
    insert_or_leave(session, ModelVersionRow, **values)


def find_version(session: Session, name: str, version: int) -> ModelVersion | None:
    query = select(ModelVersionRow).where(
        ModelVersionRow.model_name == name, ModelVersionRow.version == version
    )
    return next(iter(_versions(session, query)), None)


def find_run(session: Session, run_id: str) -> ModelVersion | None:
    """The version that a run has made."""
    query = select(ModelVersionRow).where(ModelVersionRow.run_id == run_id)
    return next(iter(_versions(session, query)), None)


def newest_version(session: Session, name: str) -> int | None:
    query = select(func.max(ModelVersionRow.version)).where(ModelVersionRow.model_name == name)
    return session.scalar(query)


def aliased_version(session: Session, name: str, alias: str) -> int | None:
    query = select(ModelAliasRow.version).where(
        ModelAliasRow.model_name == name, ModelAliasRow.alias == alias
    )
    return session.scalar(query)


def newest_of_all(session: Session) -> list[ModelVersion]:
    """The newest version of every model that has one, by name."""
    newest = (
        select(ModelVersionRow.model_name, func.max(ModelVersionRow.version).label("version"))
        .group_by(ModelVersionRow.model_name)
        .subquery()
    )
    query = select(ModelVersionRow).join(
        newest,
        (ModelVersionRow.model_name == newest.c.model_name)
        & (ModelVersionRow.version == newest.c.version),
    )
    return _versions(session, query.order_by(ModelVersionRow.model_name))


def newest_page(session: Session, *, after: str | None, limit: int, order: Order) -> Page | None:
    """The newest version of each of ``limit`` models after a name; None if it has no version."""
    if after is not None and newest_version(session, after) is None:
        return None
    column = ModelVersionRow.model_name

    def rows(after: str | None) -> Select[ModelVersionRow]:
        newest = _paged(
            select(column, func.max(ModelVersionRow.version).label("version")).group_by(column),
            column, after, limit + 1, order,
        ).subquery()  # fmt: skip
        query = select(ModelVersionRow).join(
            newest,
            (column == newest.c.model_name) & (ModelVersionRow.version == newest.c.version),
        )
        return query.order_by(column if order == "asc" else column.desc())

    return _page(session, rows, after, lambda row: row.model_name, limit)


def version_page(
    session: Session, name: str, *, after: int | None, limit: int, order: Order
) -> Page | None:
    """``limit`` versions of a model after a number; None if there is no such version."""
    if after is not None and find_version(session, name, after) is None:
        return None
    query = select(ModelVersionRow).where(ModelVersionRow.model_name == name)

    def rows(after: int | None) -> Select[ModelVersionRow]:
        return _paged(query, ModelVersionRow.version, after, limit + 1, order)

    return _page(session, rows, after, lambda row: row.version, limit)


def versions_of(session: Session, name: str | None = None) -> list[ModelVersion]:
    """Every version of one model, or of all, newest first."""
    query = select(ModelVersionRow)
    if name is not None:
        query = query.where(ModelVersionRow.model_name == name)
    order = (ModelVersionRow.model_name, ModelVersionRow.version.desc())
    return _versions(session, query.order_by(*order))


def latest_key(session: Session) -> str | None:
    """The key of the version that was made last; None if there is no version."""
    latest = ModelVersionRow.created_at.desc(), ModelVersionRow.version.desc()
    return session.scalar(select(ModelVersionRow.uri).order_by(*latest).limit(1))


def keys(session: Session) -> set[str]:
    """The keys of all versions, also of those whose row is damaged."""
    return set(session.scalars(select(ModelVersionRow.uri)))


def lock_name(session: Session, name: str) -> None:
    """Let no other transaction add or delete versions of ``name`` until this one ends."""
    # SQLite has locked the whole database for this transaction.
    session.execute(select(ModelRow.name).where(ModelRow.name == name).with_for_update())


def known_names(session: Session) -> list[str]:
    """The first names that have a version, for a message."""
    query = select(ModelVersionRow.model_name).distinct().order_by(ModelVersionRow.model_name)
    return list(session.scalars(query.limit(_SHOWN)))


def has_room_for_alias(session: Session, name: str, alias: str) -> bool:
    """Whether the model has this alias, or fewer than it may have."""
    if session.get(ModelAliasRow, (name, alias)) is not None:
        return True
    query = select(func.count()).where(ModelAliasRow.model_name == name)
    return session.execute(query).scalar_one() < MOST_ALIASES


def put_alias(session: Session, name: str, alias: str, version: int) -> None:
    """Point an alias at a version; raises IntegrityError if there is no such version."""
    session.merge(ModelAliasRow(model_name=name, alias=alias, version=version))
    session.flush()


def remove_aliases(
    session: Session, name: str, *, alias: str | None = None
) -> list[tuple[str, int]]:
    """Remove one alias of a model, or all; returns them with the versions that they named."""
    removed = delete(ModelAliasRow).where(ModelAliasRow.model_name == name)
    if alias is not None:
        removed = removed.where(ModelAliasRow.alias == alias)
    named = removed.returning(ModelAliasRow.alias, ModelAliasRow.version)
    return [(each.alias, each.version) for each in session.execute(named)]


def remove_versions(session: Session, name: str, version: int | None = None) -> list[str]:
    """Remove the rows of one version or of all; returns the keys of their files.

    Raises IntegrityError if an alias names one.
    """
    removed = delete(ModelVersionRow).where(ModelVersionRow.model_name == name)
    if version is not None:
        removed = removed.where(ModelVersionRow.version == version)
    return list(session.scalars(removed.returning(ModelVersionRow.uri)))


def _paged(
    query: Select[*Columns], column: Any, after: Any, limit: int, order: Order
) -> Select[*Columns]:
    """At most ``limit`` rows of a query, those after one value of a column."""
    if after is not None:
        query = query.where(column > after if order == "asc" else column < after)
    return query.order_by(column if order == "asc" else column.desc()).limit(limit)


def _page(
    session: Session,
    query: Callable[[A | None], Select[ModelVersionRow]],
    after: A | None,
    place: Callable[[ModelVersionRow], A],
    limit: int,
) -> Page:
    """Up to ``limit`` rows and whether there are more; empty only if nothing whole is left.

    ``query`` finds one row more than that after one's ``place``.
    """
    while True:
        rows = session.scalars(query(after)).all()
        found, more = _of_rows(session, rows[:limit]), len(rows) > limit
        if found or not more:
            return found, more
        after = place(rows[limit - 1])  # all of them are damaged


def _versions(session: Session, query: Select[ModelVersionRow]) -> list[ModelVersion]:
    """The versions that a query finds, in its order."""
    return _of_rows(session, session.scalars(query).all())


def _of_rows(session: Session, rows: Sequence[ModelVersionRow]) -> list[ModelVersion]:
    aliases = _aliases(session, {row.model_name for row in rows}) if rows else {}
    return [
        ModelVersion(
            name=row.model_name,
            version=row.version,
            sha256=row.sha256,
            size_bytes=row.card["size_bytes"],
            key=row.uri,
            created_at=row.created_at // 1000,
            card=row.card,
            run_id=row.run_id,
            aliases=aliases.get(row.model_name, {}),
        )
        for row in rows
        if _whole(row)
    ]


def _whole(row: ModelVersionRow) -> bool:
    """Whether a row can be used; a damaged one is left out, so that the others are served."""
    card: Any = row.card  # whatever it should be
    return isinstance(card, dict) and "size_bytes" in card


def _aliases(session: Session, names: Set[str]) -> dict[str, dict[str, int]]:
    """The aliases of these models, by name."""
    query = select(ModelAliasRow).order_by(ModelAliasRow.model_name, ModelAliasRow.alias)
    if len(names) <= _FEW:  # an IN for more would be longer than a statement may be
        query = query.where(ModelAliasRow.model_name.in_(names))
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in session.scalars(query):
        found[row.model_name][row.alias] = row.version
    return found
