"""The file of a SQLite database: still the one that was opened, and still writable.

A process that has opened a file keeps it when it is deleted, moved or replaced: it would go on
writing what nobody finds again. So the path is looked at before every transaction.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ..errors import StorageFailed

_WHERE: Final = "CHARLOOM_DATA_DIR or CHARLOOM_DATABASE_URL says where it is."


class DatabaseFile:
    """One path, and which file was there when it was opened; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, int] | None = None

    def opened(self) -> None:
        """Remember the file; call it when the path has been opened."""
        if self._opened is None:
            self._opened = self._found()

    def check(self) -> None:
        """Raises StorageFailed unless the path still leads to the file that was opened."""
        if self._opened is not None and self._found() != self._opened:
            raise StorageFailed(
                "The database file was replaced by another one while this program runs. Start it "
                f"again to use that one, or put the first one back. {_WHERE}"
            )

    def check_writable(self) -> None:
        """Raises StorageFailed if the file or its folder, which gets a journal, is read-only."""
        for what, place in (("folder of the database", self._path.parent),
                            ("database file", self._path)):  # fmt: skip
            if not os.access(place, os.W_OK):
                raise StorageFailed(
                    f"The {what} is read-only for Charloom's user; give it access. {_WHERE}"
                )

    def _found(self) -> tuple[int, int]:
        try:
            there = self._path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            folder = self._path.parent.is_dir()
            what = "database file" if folder else "folder of the database"
            raise StorageFailed(f"The {what} is gone; put it back. {_WHERE}") from error
        except OSError as error:
            raise StorageFailed(
                f"The database file cannot be looked at ({error.strerror}). {_WHERE}"
            ) from error
        return there.st_dev, there.st_ino
