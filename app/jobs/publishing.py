"""From a finished artifact to a model version, exactly once, also after a crash.

The file is written first, under a reserved number; then one transaction registers it as a
version and marks the job as succeeded. A crash before that transaction leaves a file without
a row, which the next attempt publishes (``Registry.left_by``). After it nothing is left to do.
"""

from __future__ import annotations

from ..catalog.model_rows import ModelVersion
from ..catalog.models import Registry
from ..catalog.synchronising import Staged
from ..errors import LeaseLost
from .runner_door import RunnerDoor
from .values import Claim


def publish(door: RunnerDoor, registry: Registry, claim: Claim, staged: Staged) -> ModelVersion:
    """Make the staged file a version and end the job.

    Raises LeaseLost. The file then stays, because another attempt may adopt it; it is removed
    only if the run has already published another file.
    """
    run_id = staged.card.run_id
    assert run_id is not None, "the card of a job's artifact names its run"
    try:
        version = door.succeed(claim, registry, staged)
    except LeaseLost:
        published = registry.published_by(run_id)
        if published is not None and published.key != staged.key:
            registry.unstage(staged)
        raise
    if version.key != staged.key:
        registry.unstage(staged)
    while (left := registry.left_by(run_id, staged.name)) is not None:
        registry.unstage(left)  # from an attempt that seemed dead but was still writing
    return version
