"""The table of datasets: each upload is described once and never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from .tables import Base, Digest, Milliseconds, UlidText


class DatasetRow(Base):
    """One text. ``uri`` is its key in the store of datasets; the same bytes are stored once."""

    __tablename__ = "datasets"
    __table_args__ = (CheckConstraint("format IN ('lines', 'text')", name="format"),)

    id: Mapped[UlidText] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    format: Mapped[str] = mapped_column(String(8))
    sha256: Mapped[Digest] = mapped_column(unique=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    characters: Mapped[int] = mapped_column(BigInteger)
    records: Mapped[int] = mapped_column(BigInteger)
    profile: Mapped[dict[str, Any]]
    uri: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Milliseconds]
