"""What all tables share: names of constraints, times, ids, JSON.

Times are integer milliseconds since 1970, taken from the database's own clock
(``now_milliseconds``); ids are 26-character ULIDs, without the prefix that users see.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from sqlalchemy import JSON, BigInteger, Integer, MetaData, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from ulid import ULID

# A later migration can alter a constraint only by its name, which must be the same on both
# databases.
NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

REVISION: Final = "0006"
"""The newest migration; a test compares it with ``migrations/``."""

NAME_LENGTH: Final = 200  # of a model's name, with all its parts

json_type = JSON().with_variant(JSONB(), "postgresql")
# SQLite assigns ids by itself only in a column of exactly this type.
big_id_type = BigInteger().with_variant(Integer(), "sqlite")

Milliseconds = Annotated[int, mapped_column(BigInteger)]
UlidText = Annotated[str, mapped_column(String(26))]
Digest = Annotated[str, mapped_column(String(64))]
BigId = Annotated[int, mapped_column(big_id_type)]


class Base(DeclarativeBase):
    """Every table's base: one metadata, one naming convention."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: json_type}  # noqa: RUF012 (SQLAlchemy's own form)


def new_ulid() -> str:
    """A new id: 26 characters that sort by creation time, to the millisecond."""
    return str(ULID())


class now_milliseconds(FunctionElement[int]):  # noqa: N801 (written like the SQL function it is)
    """SQL: the database's clock in milliseconds since 1970."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_milliseconds, "sqlite")
def _now_sqlite(element: now_milliseconds, compiler: SQLCompiler, **_: Any) -> str:
    # unixepoch('subsec') needs 3.42; 2440587.5 is the Julian day of 1970.
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"


@compiles(now_milliseconds, "postgresql")
def _now_postgresql(element: now_milliseconds, compiler: SQLCompiler, **_: Any) -> str:
    # Not now(): that is the transaction's start, which may be before a wait for a lock.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
