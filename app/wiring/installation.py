"""The parts that only store and look up: database, stores, catalog, jobs.

Each part is built from the settings once, on first use. Imports nothing that
computes, so that ``charloom models`` and ``charloom jobs`` answer at once.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from ..catalog.index import ModelIndex
from ..database.session import Database
from ..jobs.control import JobControl
from ..jobs.times import Times
from ..settings import Settings
from ..shipped import SHIPPED_MODELS, shipped
from ..store.blobs import BlobStore, explained


class Installation:
    """The parts of an installation; close it after use, or use it as a context manager.

    Without ``migrate`` the database is not migrated.
    """

    def __init__(self, settings: Settings, *, migrate: bool = True) -> None:
        self.settings = settings
        self._migrate = migrate

    @cached_property
    def database(self) -> Database:
        """The database. Raises what connecting and migrating raise."""
        database = Database(self.settings.resolved_database_url)
        try:
            if self._migrate:
                database.migrate()
        except BaseException:
            database.close()
            raise
        return database

    @cached_property
    def models(self) -> BlobStore:
        """The files of models."""
        return BlobStore(self.settings.models_url)

    @cached_property
    def checkpoints(self) -> BlobStore:
        """The files of checkpoints."""
        return BlobStore(self.settings.checkpoints_url)

    @cached_property
    def registry(self) -> ModelIndex:
        """Names, versions and aliases."""
        self._bring_shipped_models()
        return ModelIndex(self.database, self.models)

    @cached_property
    def job_control(self) -> JobControl:
        """Shows and controls jobs."""
        return JobControl(self.database, self.checkpoints, times=self.times)

    @property
    def times(self) -> Times:
        """The intervals and time limits of a job."""
        return Times(self.settings.lease_seconds)

    def close(self) -> None:
        """Close what was opened."""
        if "database" in self.__dict__:
            self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _bring_shipped_models(self) -> None:
        """Make the default models folder from the shipped models if it does not exist yet.

        It appears whole or not at all.
        """
        settings = self.settings
        chosen = settings.store_url is not None or "models_dir" in settings.model_fields_set
        if chosen or Path(settings.models_dir).exists():
            return
        if ModelIndex(self.database, self.models).list():  # the folder is missing, not new
            return
        target = Path(settings.models_dir).absolute()
        with (
            explained("The models folder"),
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".models-") as folder,
        ):
            made = Path(folder) / "models"
            for key in SHIPPED_MODELS:
                (made / key).parent.mkdir(parents=True)
                shutil.copyfile(shipped("models") / key, made / key)
            try:
                made.rename(target)
            except OSError:
                if not target.exists():  # else another process was first
                    raise
