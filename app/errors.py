"""The exceptions that users and client programs can cause and must understand.

Knows no HTTP: ``web/http/problems.py`` maps each class to a status. Our own mistakes
are an ``assert`` or an ordinary exception, and become a 500.

    CharloomError                 code, message, param
    ├── InvalidInput              the request, file or argument is wrong
    │   ├── InvalidCorpus         the training text cannot be used
    │   ├── InvalidArtifact       a model file is damaged or hostile
    │   └── TooLarge              beyond a limit that settings can raise
    ├── NotFound                  the thing named does not exist
    │   └── UnknownModel
    ├── Conflict                  the current state forbids it
    │   └── LeaseLost             a runner's claim on a job has been taken over
    ├── Overloaded                try again later (retry_after_seconds)
    │   └── TooLate               it was begun but not finished within its time limit
    ├── StorageFailed             the disk or object store refused (full, read-only, gone)
    └── TrainingFailed            training cannot go on (non-finite loss, no memory)
"""

from __future__ import annotations


class CharloomError(Exception):
    """An error with a message for people and a code for programs.

    ``param`` names the field or argument that was wrong, as the caller spelt it
    (``network.layers``), or is None.
    """

    code = "error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class InvalidInput(CharloomError):
    code = "invalid_value"


class InvalidCorpus(InvalidInput):
    code = "invalid_corpus"


class InvalidArtifact(InvalidInput):
    code = "invalid_artifact"


class TooLarge(InvalidInput):
    code = "too_large"


class NotFound(CharloomError):
    code = "not_found"


class UnknownModel(NotFound):
    code = "model_not_found"


class Conflict(CharloomError):
    code = "conflict"


class LeaseLost(Conflict):
    code = "lease_lost"


class Overloaded(CharloomError):
    """Nothing was allocated or started for the refused request."""

    code = "overloaded"

    def __init__(
        self, message: str, *, retry_after_seconds: float = 1.0, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class TooLate(Overloaded):
    """Unlike other Overloaded errors, work was done; the same request may fail again."""

    code = "deadline_exceeded"


class StorageFailed(CharloomError):
    code = "storage_failed"


class TrainingFailed(CharloomError):
    code = "training_failed"
