"""The measurements, stored in ``results.json`` part by part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_FILE: Final = Path(__file__).parent / "results.json"


def everything() -> dict[str, Any]:
    """Every part measured so far, with its latest measurement."""
    found: dict[str, Any] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
    return found


def keep(part: str, found: Any) -> None:
    """Store a part in place of its earlier measurement."""
    _FILE.write_text(json.dumps({**everything(), part: found}, indent=1) + "\n")
