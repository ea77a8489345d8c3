"""The lease on a job: the check before every write by its runner.

Takes a session and a ``Claim``. Renewing the lease by its token locks the job's row for the
rest of the transaction, so no one can take the job over before the writes that follow are
committed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from ..database.job_states import LEASED
from ..database.job_tables import AttemptRow, JobRow
from ..database.tables import now_milliseconds
from ..errors import LeaseLost
from .states import JobState, Wish
from .times import Times
from .values import Claim


def renew_lease(
    session: Session, claim: Claim, times: Times, states: frozenset[JobState] = LEASED
) -> Wish:
    """Renew the lease and lock the job's row; returns what the user wants the job to do.

    Raises LeaseLost if the claim no longer holds the job, or its state is not in ``states``.
    """
    renewal = (
        update(JobRow)
        .where(
            JobRow.id == claim.job_id,
            JobRow.lease_token == claim.token,
            JobRow.state.in_(states),
        )
        .values(lease_expires_at=now_milliseconds() + int(times.lease * 1000))
        .returning(JobRow.desired_state)
        .execution_options(synchronize_session=False)
    )
    wish = session.scalar(renewal)
    if wish is None:
        raise LeaseLost(f"Attempt {claim.number} of job {claim.job_id} is over.")
    return Wish(wish)


def touch_attempt(session: Session, claim: Claim, **values: Any) -> None:
    """Update the attempt's row."""
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == claim.job_id, AttemptRow.number == claim.number)
        .values(**values)
    )
