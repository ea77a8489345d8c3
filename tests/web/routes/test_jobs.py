"""Jobs over HTTP: what is refused, what is shown, what each state allows.

``client`` has no slot for training: its jobs wait. One server below trains.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.jobs.making import NETWORK, TRAINING, WORDS, wait_for

_NUMBERS = itertools.count()
FINAL = {"succeeded", "failed", "cancelled"}


def put_words(client: TestClient) -> str:
    answer = client.post(
        "/v1/datasets?name=words&format=lines",
        content="\n".join(WORDS).encode(),
        headers={"content-type": "text/plain"},
    )
    assert answer.is_success
    return str(answer.json()["id"])


@pytest.fixture
def dataset(client: TestClient) -> str:
    return put_words(client)


def submitted(client: TestClient, dataset: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "mine", "dataset": dataset, "network": NETWORK, "training": TRAINING, **fields}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    job: dict[str, Any] = answer.json()
    return job


@pytest.fixture
def job(client: TestClient, dataset: str) -> Iterator[dict[str, Any]]:
    job = submitted(client, dataset)
    yield job
    client.post(f"/v1/jobs/{job['id']}/cancel")


def test_two_fields_are_enough(client: TestClient, dataset: str) -> None:
    answer = client.post("/v1/jobs", json={"model": "mine", "dataset": dataset})
    assert answer.status_code == 202
    job = answer.json()
    assert job["id"].startswith("job_")
    assert job["run_id"].startswith("run_")
    assert (job["object"], job["state"], job["attempt"]) == ("job", "queued", 0)
    assert job["spec"]["network"]["cell"] in ("lstm", "gru", "rnn")
    chosen = job["spec"]["network"] | job["spec"]["training"]
    for name in ("layers", "hidden_size", "embedding_size", "batch_size", "window",
                 "optimizer", "learning_rate", "schedule", "clip_norm", "loss"):  # fmt: skip
        assert chosen[name] is not None, name
    assert job["chosen"]
    assert set(job["chosen"][0]) == {"name", "value", "reason"}
    assert (job["progress"], job["error"], job["model_version"]) == (None, None, None)
    assert abs(job["created_at"] - time.time()) < 100
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    client.post(f"/v1/jobs/{job['id']}/cancel")


def test_what_was_asked_is_shown(job: dict[str, Any]) -> None:
    assert job["spec"]["network"] == {**NETWORK, "activation": "tanh"}
    assert job["spec"]["training"].items() >= TRAINING.items()


@pytest.mark.parametrize(
    ("change", "param"),
    [({"model": None}, "model"), ({"model": 3}, "model"), ({"model": "a/b"}, "model"),
     ({"model": "../x"}, "model"), ({"model": ""}, "model"), ({"model": "x" * 65}, "model"),
     ({"model": "a\0"}, "model"), ({"model": "\ud800"}, "model"),
     ({"dataset": None}, "dataset"), ({"dataset": 7}, "dataset"), ({"dataset": ""}, "dataset"),
     ({"dataset": "x" * 1000}, "dataset"),
     ({"network": 3}, "network"), ({"network": []}, "network"),
     ({"network": {"layers": 0}}, "network.layers"),
     ({"network": {"layers": 16}}, "network.layers"),
     ({"network": {"layers": "2"}}, "network.layers"),
     ({"network": {"layers": 2.5}}, "network.layers"),
     ({"network": {"layers": True}}, "network.layers"),
     ({"network": {"hidden_size": 10**6}}, "network.hidden_size"),
     ({"network": {"hidden_size": 10**400}}, "network.hidden_size"),
     ({"network": {"cell": "transformer"}}, "network.cell"),
     ({"network": {"dropout": 1}}, "network.dropout"),
     ({"network": {"units": 3}}, "network.units"),
     ({"training": {"budget_seconds": 0}}, "training.budget_seconds"),
     ({"training": {"budget_seconds": -1}}, "training.budget_seconds"),
     ({"training": {"budget_seconds": 1e300}}, "training.budget_seconds"),
     ({"training": {"max_steps": 0}}, "training.max_steps"),
     ({"training": {"max_epochs": 10**12}}, "training.max_epochs"),
     ({"training": {"batch_size": 10**9}}, "training.batch_size"),
     ({"training": {"optimizer": "sgdm"}}, "training.optimizer"),
     ({"training": {"validation_fraction": 0}}, "training.validation_fraction"),
     ({"training": {"test_fraction": 1}}, "training.test_fraction"),
     ({"training": {"seed": -1}}, "training.seed"),
     ({"training": {"seed": 2**63}}, "training.seed"),
     ({"priority": 10**6}, "priority"), ({"max_attempts": 0}, "max_attempts"),
     ({"tags": {"a b": 1}}, "tags"), ({"tags": {"a": [1]}}, "tags"),
     ({"tags": {"a": "\0"}}, "tags"),
     ({"tags": {str(n): n for n in range(100)}}, "tags"), ({"tags": {"a": "\ud800"}}, "tags"),
     ({"budget": 3}, "budget"), ({"base_model": 3}, "base_model"),
     ({"base_model": ""}, "base_model"),
     ({"base_model": "words\0"}, "base_model"), ({"base_model": "\ud800"}, "base_model")],
)  # fmt: skip
def test_what_is_wrong_is_named(
    client: TestClient, dataset: str, change: dict[str, Any], param: str
) -> None:
    body = {"model": "mine", "dataset": dataset, **change}
    raw = json.dumps({key: value for key, value in body.items() if value is not None}).encode()
    answer = client.post("/v1/jobs", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param), error
    assert error["message"]
    assert (answer.status_code == 404) == (error["code"] == "model_not_found")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"3", b'{"model":"a","model":"b"}',
                                 b'{"model":NaN}', b"[" * 10_000])  # fmt: skip
def test_what_is_no_job(client: TestClient, raw: bytes) -> None:
    answer = client.post("/v1/jobs", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_a_body_of_another_kind_or_size(client: TestClient) -> None:
    assert client.post("/v1/jobs", content=b"{}").status_code == 415
    huge = b'{"model": "' + b"x" * (1 << 21) + b'"}'
    answer = client.post("/v1/jobs", content=huge, headers={"content-type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("id", ["ds_" + "0" * 26, "ds_x", "0" * 26, "a\0b", "\ud800"])
def test_an_unknown_dataset(client: TestClient, id: str) -> None:
    raw = json.dumps({"model": "mine", "dataset": id}).encode()
    answer = client.post("/v1/jobs", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == "dataset"
    assert answer.status_code == 400 or answer.json()["error"]["code"] == "dataset_not_found"


def test_a_job_that_cannot_fit_is_refused_with_the_numbers(
    client: TestClient, dataset: str
) -> None:
    network = {"layers": 15, "hidden_size": 16384, "embedding_size": 16384}
    body = {"model": "mine", "dataset": dataset, "network": network}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code in (400, 413)
    assert any(character.isdigit() for character in answer.json()["error"]["message"])


def test_the_same_key_gives_the_same_job(client: TestClient, dataset: str) -> None:
    key = {"idempotency-key": f"key-{next(_NUMBERS)}"}
    body = {"model": "mine", "dataset": dataset, "training": {"max_steps": 1}}
    first, again = (client.post("/v1/jobs", json=body, headers=key) for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    other = client.post("/v1/jobs", json=body | {"model": "other"}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    without = client.post("/v1/jobs", json=body)
    assert without.json()["id"] != first.json()["id"]
    for answer in (first, without):
        client.post(f"/v1/jobs/{answer.json()['id']}/cancel")


def test_a_key_too_long(client: TestClient, dataset: str) -> None:
    body = {"model": "mine", "dataset": dataset}
    answer = client.post("/v1/jobs", json=body, headers={"idempotency-key": "k" * 300})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_pages_and_filters(client: TestClient, dataset: str) -> None:
    jobs = [submitted(client, dataset, model=f"page-{n % 2}")["id"] for n in range(3)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [each["id"] for each in first["data"]] == jobs[:0:-1]
    assert first["has_more"] is True
    rest = client.get("/v1/jobs", params={"limit": 1, "after": first["last_id"]}).json()
    assert rest["first_id"] == jobs[0]
    of_one = client.get("/v1/jobs", params={"model": "page-1"}).json()
    assert [each["id"] for each in of_one["data"]] == [jobs[1]]
    client.post(f"/v1/jobs/{jobs[2]}/pause")
    paused = client.get("/v1/jobs", params={"state": "paused"}).json()
    assert [each["id"] for each in paused["data"]] == [jobs[2]]
    runs = client.get("/v1/runs", params={"model": "page-1"}).json()
    assert [each["job_id"] for each in runs["data"]] == [jobs[1]]
    for job in jobs:
        client.post(f"/v1/jobs/{job}/cancel")


@pytest.mark.parametrize(
    ("path", "params", "param"),
    [("jobs", {"state": "asleep"}, "state"), ("jobs", {"limit": 0}, "limit"),
     ("jobs", {"after": "x"}, "after"), ("jobs", {"order": "up"}, "order"),
     ("jobs", {"model": "a\0"}, "model"), ("runs", {"after": "job_x"}, "after"),
     ("runs", {"limit": 101}, "limit"), ("runs", {"model": "é"}, "model")],
)  # fmt: skip
def test_a_wrong_page_is_named(
    client: TestClient, path: str, params: dict[str, Any], param: str
) -> None:
    answer = client.get(f"/v1/{path}", params=params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_pause_resume_cancel_delete(client: TestClient, dataset: str) -> None:
    path = f"/v1/jobs/{submitted(client, dataset)['id']}"
    assert client.delete(path).json()["error"]["type"] == "conflict_error"
    for _ in range(2):
        assert client.post(f"{path}/pause").json()["state"] == "paused"
    for _ in range(2):
        assert client.post(f"{path}/resume").json()["state"] == "queued"
    for _ in range(2):
        assert client.post(f"{path}/cancel").json()["state"] == "cancelled"
    for verb in ("pause", "resume"):
        refused = client.post(f"{path}/{verb}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_state")
    finished = client.get(path).json()
    assert finished["finished_at"] >= finished["created_at"]
    assert client.delete(path).json()["deleted"] is True
    assert client.get(path).status_code == 404
    assert client.get(f"/v1/runs/{finished['run_id']}").status_code == 404


@pytest.mark.parametrize("id", ["x", "job_x", "job_" + "0" * 26, "%00", "ds_" + "0" * 26, "%ED%A0"])
def test_an_unknown_job(client: TestClient, id: str) -> None:
    calls = [("GET", ""), ("DELETE", ""), ("GET", "/events")]
    calls += [("POST", f"/{verb}") for verb in ("cancel", "pause", "resume")]
    for method, rest in calls:
        for accept in ("*/*", "text/event-stream"):
            answer = client.request(method, f"/v1/jobs/{id}{rest}", headers={"accept": accept})
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "job_not_found"


@pytest.mark.parametrize("id", ["x", "run_" + "0" * 26, "%00"])
def test_an_unknown_run(client: TestClient, id: str) -> None:
    for rest in ("", "/metrics", "/samples", "/checkpoints"):
        answer = client.get(f"/v1/runs/{id}{rest}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "run_not_found")


@pytest.mark.parametrize(
    ("path", "param"),
    [("events?after=-1", "after"), ("events?after=x", "after"), ("events?limit=0", "limit"),
     (f"events?after={2**64}", "after")],
)  # fmt: skip
def test_wrong_questions_about_events(
    client: TestClient, job: dict[str, Any], path: str, param: str
) -> None:
    answer = client.get(f"/v1/jobs/{job['id']}/{path}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 40, "٣"])
def test_a_stream_goes_on_from_an_event_only(
    client: TestClient, job: dict[str, Any], cursor: str
) -> None:
    headers = {b"accept": b"text/event-stream", b"last-event-id": cursor.encode()}
    answer = client.get(f"/v1/jobs/{job['id']}/events", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("query", ["max_points=0", "max_points=1001", "name=", "name=%00"])
def test_wrong_questions_about_metrics(client: TestClient, job: dict[str, Any], query: str) -> None:
    answer = client.get(f"/v1/runs/{job['run_id']}/metrics?{query}")
    assert answer.status_code == 400


def test_what_waits_has_a_run_without_curves(client: TestClient, job: dict[str, Any]) -> None:
    run = client.get(f"/v1/runs/{job['run_id']}").json()
    assert (run["object"], run["job_id"], run["state"]) == ("run", job["id"], "queued")
    assert run["parameters"]["network"]["hidden_size"] == NETWORK["hidden_size"]
    for part in ("metrics", "metrics?name=train_loss&name=nothing", "samples", "checkpoints"):
        page = client.get(f"/v1/runs/{job['run_id']}/{part}").json()
        assert page["object"] == "list"
        assert all(not each.get("points") for each in page["data"])


def test_jobs_are_counted_by_state(client: TestClient, job: dict[str, Any]) -> None:
    def queued() -> float:
        (line,) = [each for each in client.get("/metrics").text.splitlines()
                   if each.startswith('charloom_jobs{state="queued"}')]  # fmt: skip
        return float(line.split()[-1])

    before = queued()
    assert before >= 1
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert queued() == before - 1


def messages(text: str) -> list[dict[str, Any]]:
    """Server-sent events as {"event", "id", "data"}."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


def test_events_by_page_and_as_a_stream(client: TestClient, dataset: str) -> None:
    job = submitted(client, dataset)
    path = f"/v1/jobs/{job['id']}"
    for verb in ("pause", "resume", "cancel"):
        client.post(f"{path}/{verb}")
    first = client.get(f"{path}/events", params={"limit": 2}).json()
    rest = client.get(f"{path}/events", params={"after": first["last_id"]}).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    told = first["data"] + rest["data"]
    assert told[0]["type"] == "queued"
    assert [each["id"] for each in told] == sorted(each["id"] for each in told)
    assert {each["object"] for each in told} == {"job.event"}

    live = {"accept": "text/event-stream"}
    answer = client.get(f"{path}/events", headers=live)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    came = messages(answer.text)
    assert [each["data"] for each in came[:-1]] == told
    assert [int(each["id"]) for each in came[:-1]] == [each["id"] for each in told]
    assert came[-1]["event"] == "done"
    assert came[-1]["data"] == client.get(path).json()

    later = client.get(f"{path}/events", headers={**live, "last-event-id": str(told[1]["id"])})
    assert [each["data"] for each in messages(later.text)[:-1]] == told[2:]
    end = client.get(f"{path}/events", headers={**live, "last-event-id": str(told[-1]["id"])})
    assert [each["event"] for each in messages(end.text)] == ["done"]


def test_a_stream_ends_when_the_server_does(settings: Settings, tmp_path: Any) -> None:
    with TestClient(create_app(settings.model_copy(update={"data_dir": tmp_path}))) as client:
        job = submitted(client, put_words(client))
        state: Any = client.app.state  # type: ignore[attr-defined]
        real, portal = state.backend.jobs.get, client.portal
        assert portal is not None

        def get_and_stop(id: str) -> Any:  # the stream has been taken by then
            portal.call(state.lifecycle.draining.set)
            return real(id)

        state.backend.jobs.get = get_and_stop
        answer = client.get(f"/v1/jobs/{job['id']}/events", headers={"accept": "text/event-stream"})
        came = messages(answer.text)
        assert [each.get("event") for each in came] == [None, "progress", "error"]
        assert came[-1]["data"]["error"]["code"] == "draining"


def test_from_a_text_to_a_model_that_is_served(settings: Settings, tmp_path: Any) -> None:
    training = settings.model_copy(update={"data_dir": tmp_path / "data", "training_slots": 1,
                                           "models_dir": str(tmp_path / "models")})  # fmt: skip
    before = set(trainers())
    with TestClient(create_app(training)) as client:
        job = submitted(client, put_words(client), tags={"corpus": "made up"})
        path, run = f"/v1/jobs/{job['id']}", f"/v1/runs/{job['run_id']}"
        came = messages(client.get(f"{path}/events", headers={"accept": "text/event-stream"}).text)
        done = client.get(path).json()
        assert (done["state"], done["error"]) == ("succeeded", None)
        assert done["model_version"] == "mine@1"
        assert done["progress"]["step"] == done["progress"]["steps"] == TRAINING["max_steps"]
        assert done["created_at"] <= done["started_at"] <= done["finished_at"]
        assert came[-1] == {"event": "done", "data": done}
        assert any(each.get("event") == "progress" for each in came)
        told = client.get(run).json()
        assert (told["state"], told["model_version"], told["tags"]) == (
            "succeeded", "mine@1", {"corpus": "made up"},
        )  # fmt: skip
        curves = {
            each["id"]: each["points"] for each in client.get(f"{run}/metrics").json()["data"]
        }
        assert set(curves) >= {"train_loss", "validation_loss", "learning_rate"}
        one = client.get(f"{run}/metrics", params={"name": "train_loss", "max_points": 3}).json()
        assert [each["id"] for each in one["data"]] == ["train_loss"]
        assert len(one["data"][0]["points"]) <= 3
        assert one["data"][0]["points"][-1]["last"] == curves["train_loss"][-1]["last"]
        samples = client.get(f"{run}/samples?limit=2").json()
        assert samples["data"][0]["step"] < samples["data"][1]["step"]
        assert samples["data"][0]["text"]
        checkpoints = client.get(f"{run}/checkpoints").json()["data"]
        assert {each["kind"] for each in checkpoints} >= {"final"}
        assert all(each["run_id"] == job["run_id"] for each in checkpoints)
        card = client.get("/v1/models/mine@1").json()["card"]
        assert card["run_id"] == job["run_id"].removeprefix("run_")
        assert card["lineage"]["corpus"] == f"made up (dataset {job['dataset']})"
        written = client.post("/v1/completions", json={"model": "mine", "max_tokens": 5})
        assert written.json()["model"] == "mine@1"
        assert client.post(f"{path}/cancel").status_code == 409
        assert client.delete(path).json()["deleted"] is True
        assert client.get("/v1/models/mine").status_code == 200
        wait_for(lambda: set(trainers()) <= before)


def trainers() -> list[psutil.Process]:
    """Processes that this one has begun and that are not over, though perhaps not asked yet."""
    return [each for each in psutil.Process().children() if not _over(each)]


def _over(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
