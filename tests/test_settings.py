"""Settings: from the environment, bounded, frozen, and closed to the network by default."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.errors import InvalidInput
from app.settings import Settings
from app.wiring.environment import read_settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_is_not_exposed(host: str) -> None:
    assert not Settings(host=host).exposed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "localhost.example", "example"])
def test_anything_else_is_exposed_without_a_key(host: str) -> None:
    assert Settings(host=host).exposed
    assert not Settings(host=host, api_key="secret").exposed
    assert not Settings(host=host, trusted_network=True).exposed


@pytest.mark.parametrize("key", ["", " ", "\n", "\t \r\n"])
def test_an_empty_key_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """It could mean "no key" or "a key that was lost on the way": it must not open a server."""
    monkeypatch.setenv("CHARLOOM_API_KEY", key)
    with pytest.raises(InvalidInput) as refused:
        read_settings()
    assert refused.value.message.startswith("CHARLOOM_API_KEY must not be empty")
    assert refused.value.param == "CHARLOOM_API_KEY"


@pytest.mark.parametrize("key", ["schlüssel", "钥匙", "a\x00b", "a\nb", "a\tb", "\x1b[1m", "a\x7f"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValidationError, match="must consist of ASCII") as refused:
        Settings(api_key=key)
    assert key not in str(refused.value)


@pytest.mark.parametrize("key", ["secret\n", " secret", "\tsecret\r\n"])
def test_what_stands_around_a_key_is_no_part_of_it(key: str) -> None:
    """As ``$(cat file)`` in a unit file, or a file of a container's secrets, gives it."""
    settings = Settings(host="0.0.0.0", api_key=key)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "secret"
    assert not settings.exposed


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLOOM_PORT", "9000")
    monkeypatch.setenv("CHARLOOM_TRUSTED_NETWORK", "true")
    settings = Settings()
    assert (settings.port, settings.trusted_network) == (9000, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "70000"), ("PORT", "http"), ("THREADS", "0"), ("LOG_LEVEL", "loud")],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CHARLOOM_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_a_key_is_not_printed() -> None:
    assert "secret" not in repr(Settings(api_key="secret"))
