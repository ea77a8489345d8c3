"""Files in an object store, through any URL that fsspec supports (s3://, gs://, …).

Takes keys that ``blobs`` has checked. An object becomes visible only when all of it has
arrived, so no temporary names are needed. Credentials and endpoints come from the client's
own environment variables (for S3: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, …).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import fsspec

from ..errors import InvalidInput


class Objects:
    """The objects below ``url``.

    Raises InvalidInput for a URL that fsspec cannot open here.
    """

    def __init__(self, url: str) -> None:
        try:
            # No listings cache: other servers write here too.
            self._system: Any
            self._system, prefix = fsspec.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise InvalidInput(
                f"The store {url.partition('://')[0]}:// cannot be used here; S3 needs "
                "the package s3fs.",
            ) from error
        self._prefix = prefix.rstrip("/")

    def write(self, key: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a new object; raises FileExistsError and leaves an existing object unchanged."""
        path, content = self._path(key), b"".join(pieces)
        with _as_os_errors():
            # The check is for stores that ignore mode="create"; S3 itself refuses to overwrite.
            if self._system.exists(path):
                raise FileExistsError(errno.EEXIST, "the object exists")
            self._system.pipe_file(path, content, mode="create")

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        # Read whole into memory: our readers need all of it, and failures come before they start.
        with _as_os_errors():
            content = self._system.cat_file(self._path(key))
        yield BytesIO(content)

    def local_path(self, key: str) -> None:
        return None

    def sizes(self, folder: str, pass_over: object) -> dict[str, int]:
        # The listing is one answer: there is nothing to pass over.
        with _as_os_errors():
            found = self._system.find(f"{self._prefix}/{folder}".rstrip("/"), detail=True)
        start = len(self._prefix) + 1
        # Consoles represent a "folder" by an empty object whose name ends with a slash.
        return {
            path[start:]: int(facts["size"])
            for path, facts in found.items()
            if path[start:] and not path.endswith("/")
        }

    def delete(self, key: str) -> None:
        with _as_os_errors():
            if self._system.exists(self._path(key)):
                self._system.rm_file(self._path(key))

    def sweep(self) -> int:
        return 0  # partly written objects are never visible

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{key}"


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn the client's own exceptions into OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"the object store's client failed: {error}") from error
