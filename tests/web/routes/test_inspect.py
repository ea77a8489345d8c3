"""``POST /v1/inspect``: the units of a layer at each character, and what may follow."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.web.conftest import LETTERS, NETWORK


def inspected(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/inspect", json={"model": "words", "input": "abca", **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_every_unit_at_every_character(client: TestClient) -> None:
    seen = inspected(client)
    assert (seen["object"], seen["model"], seen["layer"], seen["kind"]) == (
        "inspection", "words@1", 0, "hidden",
    )  # fmt: skip
    assert seen["units"] == list(range(NETWORK.hidden_size))
    assert [each["character"] for each in seen["positions"]] == [None, *"abca"]
    for each in seen["positions"]:
        assert len(each["activations"]) == NETWORK.hidden_size
        assert all(-1 <= value <= 1 for value in each["activations"])
    assert seen["strongest"] == []


def test_what_follows_agrees_with_the_scores(client: TestClient) -> None:
    seen = inspected(client)
    body = {"model": "words", "input": "abca", "per_character": True, "top": 5}
    (scored,) = client.post("/v1/score", json=body).json()["data"]
    for place, character in enumerate(scored["per_character"]):
        told = seen["positions"][place]["next"]
        assert [each["character"] for each in told] == [
            each["character"] for each in character["top"]
        ]
        for one, other in zip(told, character["top"], strict=True):
            assert math.isclose(one["logprob"], other["logprob"], abs_tol=1e-9)


def test_chosen_units_and_where_they_are_highest(client: TestClient) -> None:
    whole = inspected(client, input="abcabcabcabcabc", kind="cell")
    seen = inspected(client, input="abcabcabcabcabc", kind="cell", units=[7, 2])
    assert seen["units"] == [7, 2]
    for one, other in zip(seen["positions"], whole["positions"], strict=True):
        assert one["activations"] == [other["activations"][7], other["activations"][2]]
    (first, second) = seen["strongest"]
    assert (first["unit"], second["unit"]) == (7, 2)
    values = [each["activations"][0] for each in seen["positions"]]
    assert first["places"][0]["value"] == max(values)
    told = [each["value"] for each in first["places"]]
    assert told == sorted(told, reverse=True)
    assert len(told) == 10
    assert all(values[each["position"]] == each["value"] for each in first["places"])


def test_unknown_characters_and_no_text(client: TestClient) -> None:
    seen = inspected(client, input="汉")
    assert [each["character"] for each in seen["positions"]] == [None, "汉"]
    assert len(inspected(client, input="")["positions"]) == 1


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"layer": 1}, 400, "layer"),
        ({"layer": -1}, 400, "layer"),
        ({"layer": True}, 400, "layer"),
        ({"units": [16]}, 400, "units"),
        ({"units": [-1]}, 400, "units"),
        ({"units": ["1"]}, 400, "units"),
        ({"units": [3, 3]}, 400, "units"),
        ({"kind": "gate"}, 400, "kind"),
        ({"input": "a" * 4001}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"model": "nobody"}, 404, "model"),
    ],
)
def test_wrong_questions(
    client: TestClient, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = client.post("/v1/inspect", json={"model": "words", "input": LETTERS, **fields})
    assert answer.status_code == status
    assert answer.json()["error"]["param"].startswith(param)
