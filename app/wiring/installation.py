"""What exists, and how it is looked at: database, stores, catalog, jobs.

Each part is built from the settings when it is first wanted, once. Imports
nothing that computes: ``charloom models`` and ``charloom jobs`` answer at once.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from ..catalog.index import ModelIndex
from ..database.session import Database
from ..errors import Conflict
from ..jobs.control import JobControl
from ..jobs.times import Times
from ..settings import Settings
from ..shipped import shipped
from ..store.blobs import BlobStore


class Installation:
    """The parts of an installation; close it in the end, or use it as a context manager.

    Without ``migrate`` the database is taken as it is.
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
    def index(self) -> ModelIndex:
        """Names, versions and aliases."""
        self._bring_shipped_models()
        return ModelIndex(self.database, self.models)

    @cached_property
    def job_control(self) -> JobControl:
        """Jobs to be looked at and steered."""
        return JobControl(self.database, self.checkpoints, times=self.times)

    @property
    def times(self) -> Times:
        """How long things take in the life of a job."""
        return Times(self.settings.lease_seconds)

    def close(self) -> None:
        """Let go of what was opened."""
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
        """Fill the default models folder, where there is none yet, with the shipped models."""
        settings = self.settings
        chosen = settings.store_url is not None or "models_dir" in settings.model_fields_set
        if chosen or Path(settings.models_dir).exists():
            return
        if ModelIndex(self.database, self.models).list():  # a folder that is away is no new one
            return
        come_along = BlobStore(str(shipped("models")))
        for key in come_along.sizes():
            with suppress(Conflict):  # another process does the same just now
                self.models.put(key, come_along.pieces(key))
