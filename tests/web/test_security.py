"""Who may ask, from where, and what nobody is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.errors import InvalidInput
from app.main import create_app
from app.settings import Settings
from app.web.auth.keys import PUBLIC
from app.web.http.server import check_exposure
from tests.routes import routes

KEY = "sesame-0123456789"


@pytest.fixture(scope="module")
def locked(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings.model_copy(update={"api_key": SecretStr(KEY)}))) as client:
        yield client


def test_every_route_asks_for_the_key(locked: TestClient, settings: Settings) -> None:
    asked = 0
    for method, path in routes(create_app(settings)):
        if path not in PUBLIC:
            answer = locked.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, (method, path)
            asked += 1
    assert asked >= 12
    assert locked.get("/nowhere").status_code == 401


def test_the_key_opens(locked: TestClient) -> None:
    assert locked.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert locked.get("/v1/models", headers={"authorization": f"bearer {KEY} "}).status_code == 200


def test_the_documentation_is_public_and_has_a_field_for_the_key(
    locked: TestClient, client: TestClient
) -> None:
    assert locked.get("/docs").status_code == 200
    described = locked.get("/openapi.json").json()
    (scheme,) = described["components"]["securitySchemes"].values()
    assert scheme == {"type": "http", "scheme": "bearer"}
    assert described["security"]
    assert KEY not in str(described)
    assert "security" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer x", f"Basic {KEY}", KEY,
                                   "Bearer \xff"])  # fmt: skip
def test_anything_else_does_not(locked: TestClient, given: str) -> None:
    answer = locked.get("/v1/models", headers={b"authorization": given.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text


@pytest.mark.parametrize("key", ["", " "])
def test_a_key_that_is_none_lets_nobody_in(settings: Settings, key: str) -> None:
    """Settings refuse such a key; the check does not rely on that."""
    odd = settings.model_copy(update={"api_key": SecretStr(key)})
    client = TestClient(create_app(odd))
    for given in ("Bearer", "Bearer ", "Bearer  ", "bearer\t", ""):
        headers = {"authorization": given}
        assert client.get("/v1/models", headers=headers).status_code == 401, given


def test_a_key_with_a_line_end_opens_as_it_is_sent(settings: Settings) -> None:
    fields = settings.model_dump(exclude_unset=True)
    app = create_app(Settings(**fields | {"api_key": f" {KEY}\n"}))
    with TestClient(app) as client:
        sent = {"authorization": f"Bearer {KEY}"}
        assert client.get("/v1/models", headers=sent).status_code == 200


def test_without_a_key_it_stays_at_home() -> None:
    for settings in (Settings(host="127.0.0.1"), Settings(host="::1"),
                     Settings(host="0.0.0.0", api_key=SecretStr("k")),
                     Settings(host="0.0.0.0", trusted_network=True)):  # fmt: skip
        check_exposure(settings)
    with pytest.raises(InvalidInput, match="CHARLOOM_API_KEY"):
        check_exposure(Settings(host="0.0.0.0"))


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
     {"sec-fetch-site": "same-site"}, {"origin": "http://["}],
)  # fmt: skip
def test_other_sites_pages_change_nothing(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/v1/completions", json={}, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "cross_site"
    assert "access-control-allow-origin" not in answer.headers


def test_a_name_that_points_here_is_not_believed(client: TestClient, settings: Settings) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "[", "a.b:80"):
        answer = client.get("/v1/models", headers={"host": host})
        assert answer.json()["error"]["code"] == "host_not_allowed", host
    for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "charloom"):
        assert client.get("/livez", headers={"host": host}).status_code == 200, host
    for hosts in ("models.example", "*"):
        allowed = create_app(settings.model_copy(update={"allowed_hosts": hosts}))
        assert TestClient(allowed).get("/livez", headers={"host": "models.example"}).is_success


def test_a_request_keeps_its_id(client: TestClient) -> None:
    given = client.get("/nowhere", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    assert given.json()["error"]["request_id"] == "mine-1"
    for bad in ("x" * 129, "a\tb", "\xe9"):
        answer = client.get("/livez", headers={b"x-request-id": bad.encode("latin-1")})
        assert answer.headers["x-request-id"].startswith("req_")


def test_errors_have_one_shape(client: TestClient) -> None:
    answers = [
        client.get("/nowhere"),
        client.patch("/v1/models"),
        client.get("/v1/models/nobody"),
        client.post("/v1/completions", content=b"{", headers={"content-type": "application/json"}),
        client.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}),
        client.post("/v1/completions", content=b"[]", headers={"content-type": "application/json"}),
        client.post("/v1/completions", content=b'{"n":1,"n":2}',
                    headers={"content-type": "application/json"}),
        client.post("/v1/completions", content=b"{}",
                    headers={"content-type": "application/json", "content-encoding": "gzip"}),
        client.post("/v1/completions", content=b"[" * 100_000,
                    headers={"content-type": "application/json"}),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [
        404,
        405,
        404,
        400,
        415,
        400,
        400,
        415,
        400,
    ]
    for answer in answers:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code", "request_id"}
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_our_own_mistakes_are_logged_and_not_told(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("secret path /etc")

    app.state.lifecycle.serving = True  # as after a start
    answer = TestClient(app).get("/broken")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == error["request_id"]
    assert "secret path" in caplog.text
