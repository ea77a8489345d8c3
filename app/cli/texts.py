"""Write and score texts for ``generate`` and ``score``: in this process or on a server.

Both give the same fields as the HTTP interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..settings import Settings


class Texts(Protocol):
    """Writes and scores texts."""

    def generate(self, name: str, body: dict[str, Any]) -> Iterator[str]:
        """The texts of ``n`` choices, one after another."""

    def score(self, name: str, texts: Iterable[str], *, details: bool) -> Iterator[dict[str, Any]]:
        """A score for each text, in order."""


@contextmanager
def texts_of(url: str | None, settings: Settings) -> Iterator[Texts]:
    """The server at ``url``, or the local store."""
    if url is not None:
        from .remote import connected
        from .remote_texts import RemoteTexts

        with connected(url) as client:
            yield RemoteTexts(client)
        return
    from .local_texts import local_texts

    with local_texts(settings) as texts:
        yield texts
