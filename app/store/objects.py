"""Files in an object store, through any URL that fsspec supports (s3://, gs://, …).

Takes keys that ``blobs`` has checked. An object becomes visible only when all of it has
arrived, so no temporary names are needed. Credentials and endpoints come from the client's
own environment variables (for S3: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, …).
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, Final

import fsspec

from ..errors import InvalidInput
from .seen import Stamp

_LISTING_SECONDS: Final = 5.0
"""How long one listing answers for the stamps of many objects."""


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
        self._listing = threading.Lock()
        self._listed: dict[str, Stamp] = {}
        self._listed_at = -float("inf")

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
        return {key: stamp.size_bytes for key, stamp in self._find(folder).items()}

    def stamps(self, keys: Sequence[str]) -> dict[str, Stamp | OSError]:
        try:
            if len(keys) == 1:  # one object is asked for itself; for many, one listing is cheaper
                with _as_os_errors():
                    return {keys[0]: _stamp(self._system.info(self._path(keys[0])))}
            listed = self._lately_listed(keys)
        except OSError as error:
            return dict.fromkeys(keys, error)
        return {key: listed.get(key) or _absent() for key in keys}

    def remove(self, keys: Sequence[str]) -> dict[str, OSError | None]:
        done: dict[str, OSError | None] = {}
        for key in keys:
            try:
                with _as_os_errors():
                    if not self._system.exists(self._path(key)):
                        raise _absent()
                    self._system.rm_file(self._path(key))
                done[key] = None
            except OSError as error:
                done[key] = error
        return done

    def sweep(self) -> int:
        return 0  # partly written objects are never visible

    def _find(self, folder: str) -> dict[str, Stamp]:
        with _as_os_errors():
            found = self._system.find(f"{self._prefix}/{folder}".rstrip("/"), detail=True)
        start = len(self._prefix) + 1
        # Consoles represent a "folder" by an empty object whose name ends with a slash.
        return {
            path[start:]: _stamp(facts)
            for path, facts in found.items()
            if path[start:] and not path.endswith("/")
        }

    def _lately_listed(self, keys: Sequence[str]) -> Mapping[str, Stamp]:
        """A listing that has all of these keys, or a new one."""
        # Whoever comes meanwhile waits for this listing, but not for ever.
        if not self._listing.acquire(timeout=_LISTING_SECONDS):
            raise OSError(errno.EIO, "the object store takes long to list")
        try:
            old = time.monotonic() - self._listed_at > _LISTING_SECONDS
            if old or not self._listed.keys() >= set(keys):
                self._listed = self._find("")
                self._listed_at = time.monotonic()
            return self._listed
        finally:
            self._listing.release()

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{key}"


def _absent() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "there is no such object")


def _stamp(facts: Mapping[str, Any]) -> Stamp:
    return Stamp(int(facts["size"] or 0), str(facts.get("ETag") or facts.get("etag") or ""))


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn the client's own exceptions into OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"the object store's client failed: {error}") from error
