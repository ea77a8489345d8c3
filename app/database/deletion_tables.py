"""The table of files whose rows are gone and that are still to be removed."""

from __future__ import annotations

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from .tables import Base, Milliseconds


class PendingDeletionRow(Base):
    """One file, by the name of its store and its key there.

    Written in the transaction that deletes what the file belongs to, and removed with the file.
    """

    __tablename__ = "pending_deletions"

    store: Mapped[str] = mapped_column(String(16), primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    created_at: Mapped[Milliseconds]
