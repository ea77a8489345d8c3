"""A server with nothing but its dispatcher, to be killed: ``python -m tests.survival.server``."""

from __future__ import annotations

import sys
import threading

from app.database.session import Database
from app.dataset_store import Datasets
from app.jobs.assembly import build
from app.registry import Registry
from app.settings import Settings
from app.store.blobs import BlobStore


def main() -> None:
    """Run jobs until killed; everything comes from the environment."""
    settings = Settings()
    database = Database(settings.resolved_database_url)
    database.migrate()
    registry = Registry(database, BlobStore(settings.models_dir))
    registry.synchronise()
    datasets = Datasets(database, BlobStore(str(settings.data_dir / "datasets")))
    build(settings, database, registry, datasets).dispatcher.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
