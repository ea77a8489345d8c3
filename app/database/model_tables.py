"""The tables of models: names, versions, aliases.

Constraints are declared here as well as enforced in the code above, so that no path can write
an invalid row. Knows no queries.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from .tables import NAME_LENGTH, Base, Digest, Milliseconds, UlidText


class ModelRow(Base):
    """A name under which models were published; the row stays when its versions are deleted.

    So ``next_version`` never goes back, and a version number is never reused for another file.
    """

    __tablename__ = "models"
    __table_args__ = (CheckConstraint("next_version >= 1", name="next_version"),)

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    next_version: Mapped[int]
    created_at: Mapped[Milliseconds]


class ModelVersionRow(Base):
    """One file in the store. ``uri`` is its key there; ``card`` leaves the vocabulary out."""

    __tablename__ = "model_versions"
    __table_args__ = (CheckConstraint("version >= 1", name="version"),)

    model_name: Mapped[str] = mapped_column(
        String(NAME_LENGTH), ForeignKey("models.name"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    run_id: Mapped[UlidText | None] = mapped_column(unique=True)
    sha256: Mapped[Digest]
    uri: Mapped[str] = mapped_column(Text)
    card: Mapped[dict[str, Any]]
    created_at: Mapped[Milliseconds]


class ModelAliasRow(Base):
    """A name for a version; it can be moved to another version."""

    __tablename__ = "model_aliases"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model_name", "version"], ["model_versions.model_name", "model_versions.version"]
        ),
    )

    model_name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]
