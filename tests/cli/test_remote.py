"""What the commands send to a server."""

from __future__ import annotations

import pytest

from app.cli.remote import connected
from app.errors import InvalidInput

URL = "http://127.0.0.1:9"


def test_the_key_is_sent_as_the_server_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARLOOM_API_KEY", raising=False)
    with connected(URL) as client:
        assert "authorization" not in client.headers
    monkeypatch.setenv("CHARLOOM_API_KEY", " sesame\r\n")
    with connected(URL) as client:
        assert client.headers["authorization"] == "Bearer sesame"


@pytest.mark.parametrize("key", ["", " ", "schlüssel", "a\nb"])
def test_a_key_that_cannot_be_one_is_named(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("CHARLOOM_API_KEY", key)
    with pytest.raises(InvalidInput, match="CHARLOOM_API_KEY must"), connected(URL):
        pass
