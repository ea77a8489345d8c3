"""What jobs need of datasets, whoever keeps them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from app.charlm.windows import CorpusFormat


class DatasetLike(Protocol):
    """One dataset as it was described when it came in."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def format(self) -> CorpusFormat: ...
    @property
    def sha256(self) -> str: ...
    @property
    def characters(self) -> int: ...
    @property
    def records(self) -> int: ...
    @property
    def symbols(self) -> int: ...  # distinct characters
    @property
    def profile(self) -> dict[str, Any]: ...


class DatasetSource(Protocol):
    """Where datasets are; raises NotFound (dataset_not_found)."""

    def get(self, id: str) -> Any: ...  # gives a DatasetLike

    def local(self, dataset: Any) -> AbstractContextManager[Path]: ...
