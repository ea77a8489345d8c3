"""A dispatcher's door to the database: store runners' references, take back lost jobs.

Takes a database and a ``Claim``; every method is one transaction guarded by the claim's
token, so if two dispatchers notice the same lost attempt, only one acts.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..database.job_states import LEASED
from ..database.job_tables import JobRow
from ..database.session import Database
from .attempt_end import Ending, end_attempt
from .lease import touch_attempt
from .queries import ActiveAttempt, read_active
from .states import JobState
from .times import Times
from .values import Claim

_LINES: Final = 3


class DispatcherDoor:
    """What dispatchers read and write about attempts."""

    def __init__(self, database: Database, times: Times) -> None:
        self._database = database
        self._times = times

    def active(self) -> list[ActiveAttempt]:
        """Every attempt that holds a job now, on any machine."""
        with self._database.session(read_only=True) as session:
            return read_active(session)

    def placed(self, claim: Claim, reference: str) -> None:
        """Store the reference that the executor gave for an attempt."""
        with self._database.session() as session:
            touch_attempt(session, claim, executor_ref=reference)

    def lose(
        self, claim: Claim, reason: str, *, exit_code: int | None = None, last_words: str = ""
    ) -> JobState | None:
        """Take a job back from an attempt that is gone; None if another server has done it.

        A requested pause or cancel takes effect; otherwise the job is queued again, or fails
        if no attempts are left.
        """
        message = reason
        if last_words:
            message += " Its last output: " + " | ".join(last_words.splitlines()[-_LINES:])
        ending = Ending(
            JobState.QUEUED,
            message,
            outcome="lost",
            code="runner_lost",
            exit_code=exit_code,
            payload={"exit_code": exit_code, "stderr": last_words},
        )
        return self._end(claim, ending)

    def refused(self, claim: Claim, reason: str, *, exit_code: int) -> JobState | None:
        """Take a job back whose runner ended because what it writes was refused; see ``lose``."""
        ending = Ending(
            JobState.QUEUED,
            f"The training process could not go on: {reason}",
            outcome="lost",
            code="storage_failed",
            exit_code=exit_code,
            payload={"exit_code": exit_code},
        )
        return self._end(claim, ending)

    def _end(self, claim: Claim, ending: Ending) -> JobState | None:
        with self._database.session() as session:
            if not self._locked(session, claim):
                return None
            return end_attempt(session, claim, ending, retry_ms=int(self._times.retry * 1000))

    def fail(self, claim: Claim, code: str, message: str) -> JobState | None:
        """Fail a job whose runner makes no progress; None if the attempt no longer holds it."""
        with self._database.session() as session:
            if not self._locked(session, claim):
                return None
            return end_attempt(
                session, claim, Ending(JobState.FAILED, message, outcome="failed", code=code)
            )

    @staticmethod
    def _locked(session: Session, claim: Claim) -> bool:
        query = (
            select(JobRow.id)
            .where(
                JobRow.id == claim.job_id,
                JobRow.lease_token == claim.token,
                JobRow.state.in_(LEASED),
            )
            .with_for_update()
        )
        return session.scalar(query) is not None
