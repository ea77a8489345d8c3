from __future__ import annotations

import re

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings


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
