"""Datasets as JSON, and the schema of that JSON for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from ..catalog.datasets import Dataset
from ..charlm.corpus.format import CorpusFormat
from .ids import shown
from .lists import ListAnswer


class DatasetAnswer(BaseModel):
    id: str
    object: Literal["dataset"]
    name: str
    format: CorpusFormat
    bytes: int
    characters: int
    records: int = Field(description="Lines that are not empty.")
    distinct_records: int | None = Field(
        description="Counted only in the format lines. Exact, but for two different lines with the "
        "same 64-bit hash: with ten million lines, a chance of 3 in a million."
    )
    symbols: int = Field(description="Distinct characters.")
    longest_record: int
    sha256: str
    warnings: list[str]
    created_at: int


class DatasetList(ListAnswer):
    data: list[DatasetAnswer]


class DatasetDeleted(BaseModel):
    id: str
    object: Literal["dataset"]
    deleted: Literal[True]


def dataset_object(dataset: Dataset) -> dict[str, Any]:
    """A dataset as the API shows it."""
    return {
        "id": shown("dataset", dataset.id),
        "object": "dataset",
        "name": dataset.name,
        "format": dataset.format,
        "bytes": dataset.size_bytes,
        "characters": dataset.characters,
        "records": dataset.records,
        "distinct_records": dataset.profile["distinct_records"],
        "symbols": dataset.symbols,
        "longest_record": dataset.profile["longest_record"],
        "sha256": dataset.sha256,
        "warnings": dataset.profile["warnings"],
        "created_at": dataset.created_at // 1000,
    }
