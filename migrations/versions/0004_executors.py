"""Attempts record their process; each chosen value of a job names its fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_JOBS = sa.table("jobs", sa.column("id", sa.String), sa.column("chosen", _JSON))

#: By the label for people that was stored before.
_FIELDS: dict[str, list[str]] = {
    "network": ["layers", "hidden_size"],
    "embedding": ["embedding_size"],
    "dropout": ["dropout"],
    "rows × window": ["batch_size", "window"],
    "learning rate": ["learning_rate"],
}


def upgrade() -> None:
    with op.batch_alter_table("attempts") as attempts:
        attempts.add_column(sa.Column("pid", sa.BigInteger(), nullable=True))
        attempts.add_column(sa.Column("pid_started", sa.Double(), nullable=True))
    _rewrite(lambda old: {"fields": _FIELDS[old["name"]], "reason": old["reason"]})


def downgrade() -> None:
    names = {tuple(fields): name for name, fields in _FIELDS.items()}
    _rewrite(
        lambda new: {
            "name": names.get(tuple(new["fields"]), ", ".join(new["fields"])),
            "value": "",
            "reason": new["reason"],
        }
    )
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_column("pid_started")
        attempts.drop_column("pid")


def _rewrite(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    connection = op.get_bind()
    for job_id, chosen in connection.execute(sa.select(_JOBS.c.id, _JOBS.c.chosen)).all():
        values = [change(each) for each in chosen["values"]]
        changed = sa.update(_JOBS).where(_JOBS.c.id == job_id).values(chosen={"values": values})
        connection.execute(changed)
