from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.catalog.model_rows import ModelVersion
from app.catalog.models import Registry
from app.charlm.network_config import NetworkConfig
from app.main import create_app
from app.settings import Settings
from app.store.artifact import Artifact, write
from tests.models import tiny_artifact
from tests.serving import serving
from tests.web.conftest import put_models

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


def test_the_distribution_behind_percentiles(client: TestClient) -> None:
    answer = client.get("/v1/models/words/calibration").json()
    assert answer == {"object": "calibration", "model": "words@1", "quantiles": [0.5, 1.0, 2.5]}
    assert client.get("/v1/models/nobody/calibration").status_code == 404


def test_a_model_without_held_out_records_has_no_distribution(client: TestClient) -> None:
    bare = tiny_artifact(calibration=None)
    name = f"bare-{next(_NUMBERS):03}"
    assert client.post(f"/v1/models?name={name}", content=write(bare)).status_code == 201
    assert client.get(f"/v1/models/{name}/calibration").json()["quantiles"] is None
    client.delete(f"/v1/models/{name}")


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


@pytest.fixture
def place(tmp_path: Path) -> Settings:
    """A store of this test's own."""
    models = put_models(tmp_path / "models")
    return Settings(models_dir=str(models), data_dir=tmp_path / "data", port=0, training_slots=0)


def models_of(place: Settings) -> Path:
    return Path(place.models_dir)


def test_a_version_whose_file_is_away_is_unavailable_until_it_is_back(place: Settings) -> None:
    file = models_of(place) / "words/1.safetensors"
    dataset = "\n".join(a + b + c for a in "bdklm" for b in "aeiou" for c in "nrst")
    with TestClient(create_app(place)) as client:
        client.put("/v1/models/words/aliases/live", json={"version": 1})
        known = client.post("/v1/datasets?name=words", content=dataset.encode()).json()["id"]
        job = {"model": "mine", "dataset": known, "base_model": "words@live"}
        assert client.get("/v1/models/words").json()["status"] == "available"
        file.rename(file.with_name("elsewhere"))
        shown = client.get("/v1/models/words@live").json()
        assert (shown["status"], shown["aliases"]) == ("missing", {"live": 1})
        assert "words@1 is not in the model store" in shown["status_reason"]
        for path in ("/v1/models", "/v1/models/words/versions"):
            listed = {each["id"]: each for each in client.get(path).json()["data"]}
            assert next(iter(listed.values()))["id"] in ("prose", "words@1")
            assert {each["status"] for name, each in listed.items() if "words" in name} == {
                "missing"
            }
        for answer in (
            client.post("/v1/completions", json={"model": "words@live"}),
            client.post("/v1/score", json={"model": "words", "input": "a"}),
            client.post("/v1/rank", json={"model": "words", "candidates": ["a"]}),
            client.get("/v1/models/words/file"),
            client.post("/v1/jobs", json=job),
        ):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "model_file_missing"
            assert int(answer.headers["retry-after"]) >= 1
        assert client.post("/v1/completions", json={"model": "prose"}).status_code == 200
        file.with_name("elsewhere").rename(file)
        assert client.post("/v1/completions", json={"model": "words@live"}).status_code == 200
        assert client.post("/v1/jobs", json=job).status_code == 202
        assert client.get("/v1/models/words").json()["status_reason"] is None


def test_a_store_that_is_away_is_not_ready_and_takes_nothing(place: Settings) -> None:
    models = models_of(place)
    with TestClient(create_app(place)):
        pass
    models.rename(models.with_name("elsewhere"))
    with TestClient(create_app(place)) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["missing"]) == (503, ["store"])
        assert "CHARLOOM_MODELS_DIR" in answer.json()["reasons"]["store"]
        refused = client.post("/v1/models?name=new", content=write(tiny_artifact()))
        assert refused.status_code == 500
        assert refused.json()["error"]["code"] == "store_empty"
        assert not models.exists()
        models.with_name("elsewhere").rename(models)
        assert client.get("/readyz").json() == {"status": "ok", "missing": []}
        taken = client.post("/v1/models?name=new", content=write(tiny_artifact()))
        assert taken.status_code == 201


def test_deleting_is_answered_when_it_is_decided(
    place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def read_only(path: Any, *arguments: Any, **named: Any) -> None:
        if str(path).endswith(".safetensors"):
            raise OSError(30, "Read-only file system")
        unlink(path, *arguments, **named)

    with TestClient(create_app(place)) as client, monkeypatch.context() as patched:
        patched.setattr(os, "unlink", read_only)
        assert client.delete("/v1/models/words").status_code == 200
        assert client.get("/v1/models/words").status_code == 404
    with TestClient(create_app(place)) as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["prose"]
    assert not (models_of(place) / "words/1.safetensors").exists()


def failures(log: list[str]) -> list[str]:
    """The lines that a log has beside one for each request."""
    return [line for line in log if " INFO " not in line]


def test_a_file_that_is_missing_or_damaged_is_not_begun_to_be_sent(place: Settings) -> None:
    models = models_of(place)
    with serving(place) as url:
        for name in ("words", "prose"):
            path = models / name / "1.safetensors"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content if name == "words" else content[:-1])
        httpx.post(f"{url}/v1/models?name=gone", content=write(tiny_artifact()))
        (models / "gone/1.safetensors").unlink()
        for name, status, code in (
            ("words", 500, "damaged_model"),
            ("prose", 500, "damaged_model"),
            ("gone", 503, "model_file_missing"),
        ):
            before = len(url.log)
            answer = httpx.get(f"{url}/v1/models/{name}/file")
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            time.sleep(0.2)
            assert len(failures(url.log[before:])) <= 1
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        statuses = {each["id"]: each["status"] for each in listed}
        assert statuses == {"gone": "missing", "prose": "damaged", "words": "damaged"}


def test_a_file_that_is_damaged_while_it_is_sent_ends_with_one_line(place: Settings) -> None:
    large = tiny_artifact(config=NetworkConfig("lstm", 1, 1536, 64))
    with serving(place) as url:
        httpx.post(f"{url}/v1/models?name=large", content=write(large), timeout=60)
        before = len(url.log)
        received = 0
        with httpx.stream("GET", f"{url}/v1/models/large/file", timeout=60) as answer:
            pieces = answer.iter_raw()
            received += len(next(pieces))
            with (models_of(place) / "large/1.safetensors").open("r+b") as file:
                file.seek(-100, os.SEEK_END)
                file.write(b"x" * 50)
            with pytest.raises(httpx.RemoteProtocolError):
                received += sum(map(len, pieces))
        assert received < int(answer.headers["content-length"])
        time.sleep(0.2)
        assert len(failures(url.log[before:])) == 1
        assert httpx.get(f"{url}/v1/models/large/file").status_code == 500
        assert httpx.get(f"{url}/v1/models/large").json()["status"] == "damaged"
