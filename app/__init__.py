"""Charloom. Importing any part of it decides where compiled code is kept.

numba recompiles when the file of a compiled function has changed, but not when
a file has that it calls into. So the folder is named by a digest of all of
``charlm``: after an update nothing stale is found. The package's own name is part
of the digest, because compiled code refers to modules by their names.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_PREFIX = "compiled-"


def _keep_compiled_code() -> None:
    """Set NUMBA_CACHE_DIR to a folder within it, or within the first that can be written to."""
    here = Path(__file__).parent
    digest = hashlib.sha256(__name__.encode())
    for source in sorted(here.glob("charlm/**/*.py")):
        digest.update(source.read_bytes())
    name = _PREFIX + digest.hexdigest()[:16]
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:  # perhaps by the process that started this one
        bases = [Path(given).parent if Path(given).name.startswith(_PREFIX) else Path(given)]
    else:
        bases = [here / "__pycache__", Path("~/.cache/charloom").expanduser()]
    for base in bases:
        try:
            (base / name).mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):
            continue
        if os.access(base / name, os.W_OK):
            os.environ["NUMBA_CACHE_DIR"] = str(base / name)
            return


_keep_compiled_code()
