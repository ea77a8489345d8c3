from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.catalog.model_rows import ModelVersion
from app.catalog.models import Registry
from app.main import create_app
from app.settings import Settings
from app.store.artifact import Artifact, write
from tests.models import tiny_artifact

_NUMBERS = itertools.count()


@pytest.fixture
def guest(client: TestClient) -> Iterator[str]:
    """A model with two versions, gone afterwards; its number is never given out again."""
    name = f"guest-{next(_NUMBERS):03}"
    for seed in (1, 2):
        answer = client.post(f"/v1/models?name={name}", content=write(tiny_artifact(seed=seed)))
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"/v1/models/{name}@{seed}"
    yield name
    client.delete(f"/v1/models/{name}")


def test_the_list_has_every_model(client: TestClient) -> None:
    answer = client.get("/v1/models").json()
    assert [each["id"] for each in answer["data"]] == ["prose", "words"]
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("prose", "words", False)
    card = answer["data"][1]["card"]
    assert (card["cell"], card["corpus_format"], card["symbols"]) == ("lstm", "lines", 13)
    assert "vocabulary" not in card


def test_pages_follow_one_another(client: TestClient, guest: str) -> None:
    first = client.get("/v1/models", params={"limit": 2}).json()
    rest = client.get("/v1/models", params={"limit": 2, "after": first["last_id"]}).json()
    assert [each["id"] for each in first["data"] + rest["data"]] == [guest, "prose", "words"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    down = client.get("/v1/models", params={"order": "desc"}).json()
    assert [each["id"] for each in down["data"]] == ["words", "prose", guest]


@pytest.mark.parametrize(
    ("params", "param"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"limit": "x"}, "limit"),
     ({"after": "nobody"}, "after"), ({"order": "up"}, "order")],
)  # fmt: skip
def test_a_wrong_page_is_named(client: TestClient, params: dict[str, Any], param: str) -> None:
    answer = client.get("/v1/models", params=params)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_versions_newest_first(client: TestClient, guest: str) -> None:
    answer = client.get(f"/v1/models/{guest}/versions").json()
    assert [each["id"] for each in answer["data"]] == [f"{guest}@2", f"{guest}@1"]
    assert client.get(f"/v1/models/{guest}").json()["version"] == 2
    assert client.get(f"/v1/models/{guest}@1").json()["version"] == 1


def test_a_version_has_the_aliases_that_name_it(client: TestClient, guest: str) -> None:
    """Every alias at every version would make a list as long as their product."""
    for alias, version in (("live", 1), ("next", 2), ("last", 2)):
        client.put(f"/v1/models/{guest}/aliases/{alias}", json={"version": version})
    listed = client.get(f"/v1/models/{guest}/versions").json()["data"]
    assert [each["aliases"] for each in listed] == [{"last": 2, "next": 2}, {"live": 1}]
    everything = {"last": 2, "live": 1, "next": 2}
    assert client.get(f"/v1/models/{guest}@1").json()["aliases"] == everything
    assert client.get("/v1/models").json()["data"][0]["aliases"] == everything
    first = client.get(f"/v1/models/{guest}/versions", params={"limit": 1}).json()
    asked = {"limit": 1, "after": first["last_id"]}
    rest = client.get(f"/v1/models/{guest}/versions", params=asked).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [each["id"] for each in rest["data"]] == [f"{guest}@1"]


def test_an_alias_names_a_version_until_it_is_moved(client: TestClient, guest: str) -> None:
    path = f"/v1/models/{guest}/aliases/live"
    assert client.put(path, json={"version": 1}).json()["id"] == f"{guest}@live"
    assert client.get(f"/v1/models/{guest}@live").json()["version"] == 1
    assert (
        client.post("/v1/completions", json={"model": f"{guest}@live"}).json()["model"]
        == f"{guest}@1"
    )
    assert client.put(path, json={"version": 2}).status_code == 200
    assert (
        client.post("/v1/completions", json={"model": f"{guest}@live"}).json()["model"]
        == f"{guest}@2"
    )
    assert client.delete(f"/v1/models/{guest}@2").json()["error"]["code"] == "alias_in_use"
    assert client.delete(path).json()["deleted"] is True
    assert client.delete(path).status_code == 404
    assert client.delete(f"/v1/models/{guest}@2").json() == {
        "id": f"{guest}@2", "object": "model", "deleted": True,
    }  # fmt: skip
    assert client.get(f"/v1/models/{guest}").json()["version"] == 1


def test_a_file_goes_out_and_comes_in_again(client: TestClient, guest: str) -> None:
    answer = client.get(f"/v1/models/{guest}@2/file")
    digest = hashlib.sha256(answer.content).hexdigest()
    assert answer.headers["etag"] == f'"{digest}"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert f"{guest}-2.safetensors" in answer.headers["content-disposition"]
    known = client.get(f"/v1/models/{guest}@2/file", headers={"if-none-match": f'"{digest}"'})
    assert known.status_code == 304
    again = client.post(f"/v1/models?name={guest}", content=answer.content)
    assert again.json()["version"] == 3
    assert (
        again.json()["card"]["weights_sha256"]
        == client.get(f"/v1/models/{guest}@2").json()["card"]["weights_sha256"]
    )


@pytest.mark.parametrize(
    "body", [b"", b"x" * 7, b"\xff" * 4096, b"\x02\x00\x00\x00\x00\x00\x00\x00{}"]
)
def test_what_is_no_model_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/models?name=nobody", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_artifact"
    assert client.get("/v1/models/nobody").status_code == 404


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "a\x00", "x" * 65, "@1"])
def test_a_model_needs_a_name(client: TestClient, name: str) -> None:
    body = write(tiny_artifact())
    answer = client.post("/v1/models", params={"name": name}, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "name"


def test_a_body_beyond_the_limit_is_refused(client: TestClient) -> None:
    huge = {"content-length": str(1 << 40)}
    answer = client.post("/v1/models?name=nobody", headers=huge, content=b"x")
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["nobody", "a%2Fb", "words@9", "words@nope", "%2e%2e%2fetc"])
def test_an_unknown_model_is_a_404_that_says_so(client: TestClient, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/v1/models/{path}")
        assert answer.status_code in (400, 404)
        if method == "GET":
            assert answer.json()["error"]["code"] == "model_not_found"


def test_a_slow_load_happens_once_and_holds_nobody_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a large model on a slow object store, asked for by many at once."""
    opened: list[str] = []
    may_go = threading.Event()
    original = Registry.open

    def slow(self: Registry, version: ModelVersion) -> Artifact:
        opened.append(version.id)
        assert may_go.wait(30)
        return original(self, version)

    monkeypatch.setattr(Registry, "open", slow)
    body = {"model": "prose", "max_tokens": 1}
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(40) as pool:
        asking = [pool.submit(client.post, "/v1/completions", json=body) for _ in range(40)]
        while not opened:
            time.sleep(0.01)
        assert client.get("/readyz").status_code == 200
        may_go.set()
        assert {each.result().status_code for each in asking} == {200}
    assert opened == ["prose@1"]
