"""Settings from the environment: one translation for the server, the runner and the commands."""

from __future__ import annotations

import pytest

from app.errors import InvalidInput
from app.main import create_app
from app.wiring.environment import read_settings


def test_a_wrong_variable_is_named_whoever_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLOOM_PORT", "abc")
    for read in (read_settings, create_app):
        with pytest.raises(InvalidInput) as caught:
            read()
        assert caught.value.message == "CHARLOOM_PORT must be an integer."
        assert caught.value.param == "CHARLOOM_PORT"
