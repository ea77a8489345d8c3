"""What was measured, kept in ``results.json`` part by part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_FILE: Final = Path(__file__).parent / "results.json"


def everything() -> dict[str, Any]:
    """All parts that were ever measured, each from its last time."""
    found: dict[str, Any] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
    return found


def keep(part: str, found: Any) -> None:
    """Put a part in the place of what was measured before."""
    _FILE.write_text(json.dumps({**everything(), part: found}, indent=1) + "\n")
