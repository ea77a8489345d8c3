"""From a finished artifact to a model version, once, whatever crashes on the way.

The file is written first, under a reserved number; then one transaction makes
it a version and the job succeeded. A crash before that transaction leaves a
file without a row: the next attempt finds it by its run and takes it (``adopt``)
instead of writing a second one. A crash after it leaves nothing to do.
"""

from __future__ import annotations

from app.database import model_rows
from app.database.session import Database
from app.errors import CharloomError, LeaseLost
from app.jobs.leases import Leases
from app.jobs.queue import Claim
from app.registry import ModelVersion, Registry, Staged
from app.store.artifact import read
from app.store.blobs import BlobStore
from app.store.layout import parse_key


def published_by(database: Database, run_id: str) -> ModelVersion | None:
    """The version that a run has made already."""
    with database.session(read_only=True) as session:
        return model_rows.find_run(session, run_id)


def adopt(database: Database, blobs: BlobStore, model: str, run_id: str) -> Staged | None:
    """The whole file that an earlier attempt of this run has left, if it has."""
    with database.session(read_only=True) as session:
        known = {each.key for each in model_rows.versions_of(session, model)}
    for key in blobs.sizes(model):
        place = parse_key(key)
        if key in known or place is None:
            continue
        try:
            with blobs.open(key) as stream:
                card = read(stream).card
        except CharloomError:  # someone else's damaged file is no matter of this job
            continue
        if card.run_id == run_id:
            return Staged(*place, card)
    return None


def publish(
    leases: Leases,
    registry: Registry,
    database: Database,
    models: BlobStore,
    claim: Claim,
    staged: Staged,
) -> ModelVersion:
    """Make the staged file a version and end the job.

    Raises LeaseLost. The file then stays if another attempt may have adopted
    it, or still may; only when the run is known to be another file it is ours
    to remove.
    """
    run_id = staged.card.run_id
    assert run_id is not None, "a job's model knows its run"
    try:
        version = leases.succeed(claim, registry, staged)
    except LeaseLost:
        published = published_by(database, run_id)
        if published is not None and published.key != staged.key:
            registry.unstage(staged)
        raise
    if version.key != staged.key:
        registry.unstage(staged)
    while (left := adopt(database, models, staged.name, run_id)) is not None:
        registry.unstage(left)  # of an attempt that was taken for dead and wrote meanwhile
    return version
