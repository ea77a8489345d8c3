"""Find the version that a run has published, or the file that it left when it crashed.

Publishing writes the file first and its row second. A crash in between leaves a whole file
without a row. ``adopt`` finds it by the run that its card names, so that it is published
instead of a second file.
"""

from __future__ import annotations

from ..database.session import Database
from ..errors import CharloomError
from ..store.blobs import BlobStore
from ..store.layout import parse_key
from ..store.model_file import check
from . import model_rows
from .index import Staged
from .model_rows import ModelVersion


def published_by(database: Database, run_id: str) -> ModelVersion | None:
    """The version that a run has published, if any."""
    with database.session(read_only=True) as session:
        return model_rows.find_run(session, run_id)


def adopt(database: Database, blobs: BlobStore, model: str, run_id: str) -> Staged | None:
    """The whole file that an earlier attempt of this run left without a row, if there is one."""
    with database.session(read_only=True) as session:
        known = {each.key for each in model_rows.versions_of(session, model)}
    for key in blobs.sizes(model):
        place = parse_key(key)
        if key in known or place is None:
            continue
        try:
            with blobs.open(key) as stream:
                card = check(stream).card
        except CharloomError:  # another run's damaged file does not concern this job
            continue
        if card.run_id == run_id:
            return Staged(*place, card)
    return None
