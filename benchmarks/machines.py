"""Where and when something was measured."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

from app.cli.benchmark import processor


def machine() -> dict[str, Any]:
    """This machine, its load, and the time now."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load": [round(each, 2) for each in os.getloadavg()],
    }
