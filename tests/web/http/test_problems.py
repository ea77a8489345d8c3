"""Wrong input is told in the same words wherever it comes in."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.errors import InvalidInput
from app.jobs.spec import JobSpec


def test_a_body_a_query_and_a_specification_speak_alike(client: TestClient) -> None:
    def told(answer: Any) -> tuple[str, str]:
        error = answer.json()["error"]
        return error["message"], error["code"]

    assert told(client.post("/v1/score", json={})) == ("input is required.", "missing")
    assert told(client.post("/v1/models", content=b"x")) == ("name is required.", "missing")
    with pytest.raises(InvalidInput, match=r"^model is required\.$"):
        JobSpec.parse({"dataset": "b"})
    unknown = ("colour is not a known field.", "unknown_field")
    assert told(client.post("/v1/score", json={"input": "a", "colour": 1})) == unknown
    with pytest.raises(InvalidInput, match=r"^colour is not a known field\.$"):
        JobSpec.parse({"model": "a", "dataset": "b", "colour": 1})
