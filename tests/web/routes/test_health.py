from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from app.web import probes
from app.web.routes import health
from tests.web.conftest import put_models


def test_it_lives_and_is_ready(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "missing": []}


def test_before_the_start_it_lives_but_is_not_ready(settings: Settings) -> None:
    # Without `with`, the lifespan has not begun.
    client = TestClient(create_app(settings))
    assert client.get("/livez").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, ["startup"])
    assert answer.json()["code"] == "starting"
    assert int(answer.headers["retry-after"]) >= 1
    refused = client.get("/v1/models")
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "overloaded_error"
    assert int(refused.headers["retry-after"]) >= 1


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """A server's settings whose folders a test may spoil."""
    models = put_models(tmp_path / "models")
    return Settings(
        models_dir=str(models), data_dir=tmp_path / "data", default_model="words", training_slots=0
    )


def test_a_data_folder_that_is_away_is_missing(own: Settings) -> None:
    away = own.data_dir.with_name("elsewhere")
    with TestClient(create_app(own)) as client:
        assert client.get("/readyz").status_code == 200
        own.data_dir.rename(away)
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["missing"] == ["database", "data_folder"]
        reasons = answer.json()["reasons"]
        assert reasons["database"].startswith("The folder of the database is gone")
        assert reasons["data_folder"].startswith("The data folder is gone")
        upload = client.post("/v1/datasets?name=words", content=b"abc\n")
        assert upload.status_code == 500
        assert not own.data_dir.exists()  # the mount that comes back must not be covered
        assert str(own.data_dir) not in answer.text
        refused = client.get("/v1/jobs").json()["error"]
        assert refused["message"].startswith("The folder of the database is gone")
        away.rename(own.data_dir)
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/jobs").status_code == 200


def test_a_database_file_that_was_deleted_is_missing(own: Settings) -> None:
    with TestClient(create_app(own)) as client:
        (own.data_dir / "charloom.sqlite3").unlink()
        answer = client.get("/readyz").json()
        assert answer["missing"] == ["database"]
        assert answer["reasons"]["database"].startswith("The database file is gone")
        assert "read-only" not in answer["reasons"]["database"]
        written = client.put("/v1/models/words/aliases/live", json={"version": 1})
        assert written.json()["error"]["code"] == "storage_failed"
        assert not (own.data_dir / "charloom.sqlite3").exists()


def test_a_data_folder_without_permissions_is_missing(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app(own)) as client:
        monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != own.data_dir)
        answer = client.get("/readyz").json()
        assert answer["missing"] == ["database", "data_folder"]
        assert "is read-only for Charloom's user" in answer["reasons"]["data_folder"]


def test_metrics_and_readiness_do_not_wait_for_a_locked_database(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked all the time, they would take every thread there is."""
    with TestClient(create_app(own)) as client:
        backend = client.app.state.backend  # type: ignore[attr-defined]
        assert 'charloom_jobs{state="queued"} 0.0' in client.get("/metrics").text
        locked, looks = threading.Event(), []

        def wait(*_: object, **__: object) -> None:
            looks.append(threading.current_thread().name)
            locked.wait(60)

        monkeypatch.setattr(backend.installation.database, "hurried", wait)
        monkeypatch.setattr(health, "_COUNT_SECONDS", 0.05)
        monkeypatch.setattr(probes, "_SECONDS", 0.05)
        try:
            for _ in range(20):
                assert 'charloom_jobs{state="queued"} 0.0' in client.get("/metrics").text
                answer = client.get("/readyz").json()
                assert answer["missing"] == ["database"]
                assert "no answer within" in answer["reasons"]["database"]
            assert len(looks) == 2, "one for each, however often it is asked"
        finally:
            locked.set()


def test_the_engine_and_the_requests_are_counted(client: TestClient) -> None:
    client.post("/v1/completions", json={"max_tokens": 1})
    for path in ("/random1", "/random2", "/v1/models/x1", "/v1/models/x2"):
        client.get(path)
    text = client.get("/metrics").text
    for name in ("engine_rows_running", "engine_requests_waiting", "engine_symbols_total",
                 "engine_sequences_finished_total", "engine_first_symbol_seconds_bucket",
                 "engine_state_cache_hits", "http_requests_total"):  # fmt: skip
        assert f"charloom_{name}" in text
    # Paths nobody knows make no series of their own.
    assert "random1" not in text
    assert "x1" not in text
    routes = set(re.findall(r'route="([^"]*)"', text))
    assert {"none", "/v1/models/{model:path}", "/v1/completions"} <= routes


def test_the_documentation_needs_no_network(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace("<title>Charloom: the HTTP interface", "")
    for path in re.findall(r'(?:href|src)="([^"]+)"', page.text):
        assert client.get(path).status_code == 200, path
    assert "'self'" in page.headers["content-security-policy"]
    assert client.get("/docs/../models.py").status_code == 404
    assert client.get("/docs/index.html").status_code == 404


def test_every_route_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert "$defs" not in str(described)
    for path, methods in described["paths"].items():
        for method, fields in methods.items():
            assert fields.get("summary"), (method, path)
            assert "default" in fields["responses"]
    properties = described["paths"]["/v1/completions"]["post"]["requestBody"]["content"][
        "application/json"
    ]["schema"]["properties"]
    assert properties["temperature"]["maximum"] == 5
