"""The migrations make exactly the tables that the code knows, on both databases, up and down."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from app.database import job_tables
from app.database.job_states import JobState
from app.database.session import Database
from app.database.tables import Base
from tests.database.migrating import migrate_to
from tests.jobs.making import Place

DESCENDING = "ix_jobs_state_priority_queued_at"


def test_migrations_and_tables_agree(database: Database) -> None:
    assert job_tables.JobRow.__tablename__ in Base.metadata.tables
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences: list[Any] = compare_metadata(context, Base.metadata)
    # SQLite forgets that a column of an index descends, and Alembic takes it for another.
    assert [each for each in differences if DESCENDING not in str(each)] == []
    assert DESCENDING in {each["name"] for each in inspect(database.engine).get_indexes("jobs")}


def test_down_and_up_again(database: Database) -> None:
    migrate_to(database, "0002")
    assert "jobs" not in inspect(database.engine).get_table_names()
    database.migrate()
    assert "jobs" in inspect(database.engine).get_table_names()
    migrate_to(database, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]


def test_what_was_chosen_survives_going_down_and_up(place: Place) -> None:
    """Before 0004 a choice was a label for people, now it names its fields."""
    before = place.submitted(network={}).chosen
    assert ("batch_size", "window") not in [each.fields for each in before]  # was asked for
    assert ("layers", "hidden_size") in [each.fields for each in before]
    migrate_to(place.database, "0003")
    with place.database.session(read_only=True) as session:
        (stored,) = session.scalars(text("SELECT chosen FROM jobs"))
    assert "fields" not in str(stored)
    assert "embedding" in str(stored)
    place.database.migrate()
    (job,) = place.jobs.list().items
    assert job.chosen == before


def test_the_checks_name_every_state(database: Database) -> None:
    checks = inspect(database.engine).get_check_constraints("jobs")
    told = next(str(each["sqltext"]) for each in checks if each["name"] == "ck_jobs_state")
    assert all(f"'{state}'" in told for state in JobState)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'lost'",
        "state = 'succeeded'",
        "state = 'running'",
        "state = 'failed'",
        "model_version = 'words@1'",
        "lease_expires_at = 5",
        "desired_state = 'fly'",
        "dataset_id = 'nothing'",
    ],
)
def test_what_must_not_be_cannot_be_written(place: Place, change: str) -> None:
    place.submitted()
    with pytest.raises(IntegrityError), place.database.session() as session:
        session.execute(text(f"UPDATE jobs SET {change}"))
