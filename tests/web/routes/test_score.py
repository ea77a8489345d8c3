from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.errors import StorageFailed
from app.web.http.spool import Spool

NDJSON = {"content-type": "application/x-ndjson"}


def scored(client: TestClient, **body: Any) -> list[Any]:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    data: list[Any] = answer.json()["data"]
    return data


def test_a_score_adds_up(client: TestClient) -> None:
    (item,) = scored(client, input="abc", per_character=True, top=3)
    each = item["per_character"]
    assert [entry["character"] for entry in each] == ["a", "b", "c", None]
    assert item["characters"] == 4
    assert item["nats"] == pytest.approx(-math.fsum(entry["logprob"] for entry in each))
    assert item["bits_per_character"] == pytest.approx(item["nats"] / 4 / math.log(2))
    assert item["perplexity"] == pytest.approx(math.exp(item["nats"] / 4))
    assert 0 <= item["percentile"] <= 100
    for entry in each:
        assert len(entry["top"]) == 3
        assert (entry["rank"] == 1) == (entry["top"][0]["logprob"] == entry["logprob"])


def test_all_lines_together_have_probability_one(client: TestClient) -> None:
    """The closing boundary counts: what no short line takes, longer ones do."""
    letters = "abcdefghij "
    short = ["", *letters, *(a + b for a in letters for b in letters)]
    known = math.fsum(math.exp(-item["nats"]) for item in scored(client, input=short))
    longer = client.post(
        "/v1/rank",
        json={"candidates": [a + b + c for a in letters for b in letters for c in letters[:5]],
              "closed": False},
    ).json()["data"]  # fmt: skip
    more = math.fsum(math.exp(item["logprob"]) for item in longer)
    assert 0 < known < 1
    assert known + more <= 1 + 1e-9


def test_a_text_model_has_no_closing_boundary(client: TestClient) -> None:
    (item,) = scored(client, model="prose", input="ab", per_character=True)
    assert [entry["character"] for entry in item["per_character"]] == ["a", "b"]
    (nothing,) = scored(client, model="prose", input="")
    assert nothing["characters"] == 0
    assert nothing["nats"] == 0
    assert nothing["percentile"] is None


def test_many_inputs_score_as_one_by_one(client: TestClient) -> None:
    texts = ["ab" * place for place in range(40)]
    together = scored(client, input=texts)
    assert [item["nats"] for item in together] == [
        scored(client, input=t)[0]["nats"] for t in texts
    ]
    assert [item["index"] for item in together] == list(range(40))


def test_no_texts_have_no_scores(client: TestClient) -> None:
    """As a body of no lines has none; but the model must exist."""
    answer = client.post("/v1/score", json={"input": []})
    assert answer.status_code == 200
    assert answer.json() == {"object": "list", "model": "words@1", "data": [],
                             "usage": {"prompt_tokens": 0, "total_tokens": 0}}  # fmt: skip
    assert client.post("/v1/score", json={"input": [], "model": "nobody"}).status_code == 404
    nothing = client.post("/v1/score", content=b"", headers=NDJSON)
    assert (nothing.status_code, nothing.content) == (200, b"")


def test_no_candidates_have_no_order(client: TestClient) -> None:
    answer = client.post("/v1/rank", json={"candidates": []})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("candidates", "out_of_range")


def test_the_first_wrong_candidate_is_named(client: TestClient) -> None:
    error = client.post("/v1/rank", json={"candidates": ["a", 1, 2]}).json()["error"]
    assert (error["param"], error["message"]) == ("candidates.1", "candidates.1 must be a string.")
    error = client.post("/v1/rank", json={"candidates": [1] * 1001}).json()["error"]
    assert error["message"] == "candidates must have at most 1,000 entries."


def test_lines_split_anywhere_are_whole(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for byte in b'"ab"\n\n{"input": "c"}\n' + b'"' + b"d" * 50 + b'"':
            yield bytes([byte])

    answer = client.post("/v1/score", content=pieces(), headers=NDJSON)
    assert [json.loads(line)["characters"] for line in answer.text.splitlines()] == [3, 2, 51]


def test_unknown_characters_are_reported(client: TestClient) -> None:
    assert scored(client, input="aXbYX")[0]["unknown_characters"] == "XY"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a"] * 1001}, "input"),
        ({"input": "a" * 1_000_001}, "input"),
        ({"input": "a", "top": 21}, "top"),
        ({"input": "a", "per_char": True}, "per_char"),
    ],
)
def test_what_is_wrong_is_named(client: TestClient, body: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_ndjson_is_answered_line_by_line(client: TestClient) -> None:
    body = b'"abc"\n{"input": "d"}\n\n{"input": 5}\nnot json\n"\xff"\r\n"j"'
    answer = client.post("/v1/score?per_character=true", content=body, headers=NDJSON)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert [line.get("error", {}).get("code") for line in lines] == [
        None, None, "invalid_type", "invalid_json", "invalid_json", None,
    ]  # fmt: skip
    assert lines[0]["nats"] == scored(client, input="abc")[0]["nats"]
    assert len(lines[5]["per_character"]) == 2


def test_ndjson_of_many_lines_keeps_their_order(client: TestClient) -> None:
    texts = ["abcdefghij"[: place % 10] for place in range(3000)]
    body = "\n".join(map(json.dumps, texts))
    answer = client.post("/v1/score", content=body.encode(), headers=NDJSON)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    wanted = {item["index"]: item["nats"] for item in scored(client, input=texts[:10])}
    assert [line["nats"] for line in lines] == [wanted[place % 10] for place in range(3000)]


def test_a_line_too_long_loses_nothing_else(client: TestClient) -> None:
    body = b'"a"\n"' + b"b" * (5 << 20) + b'"\n"c"\n'
    answer = client.post("/v1/score", content=body, headers=NDJSON)
    first, long, last = map(json.loads, answer.text.splitlines())
    assert long["error"]["code"] == "line_too_long"
    assert "nats" in first
    assert "nats" in last


def test_ndjson_of_an_unknown_model(client: TestClient) -> None:
    answer = client.post("/v1/score?model=nobody", content=b'"a"', headers=NDJSON)
    assert answer.status_code == 404


def test_rank_puts_the_likeliest_first(client: TestClient) -> None:
    candidates = ["b", "cc", "dd", "x"]
    ranked = client.post("/v1/rank", json={"prompt": "a", "candidates": candidates}).json()["data"]
    logprobs = [item["logprob"] for item in ranked]
    assert logprobs == sorted(logprobs, reverse=True)
    assert [candidates[item["index"]] for item in ranked] == [item["candidate"] for item in ranked]
    assert next(i for i in ranked if i["candidate"] == "x")["unknown_characters"] == "x"


def test_a_rank_is_the_difference_of_two_scores(client: TestClient) -> None:
    asked = {"model": "prose", "prompt": "ab", "candidates": ["cd"]}
    ranked = client.post("/v1/rank", json=asked).json()["data"][0]["logprob"]
    whole, prompt = scored(client, model="prose", input=["abcd", "ab"])
    assert ranked == pytest.approx(prompt["nats"] - whole["nats"])


def test_a_text_model_ranks_no_closed_candidates(client: TestClient) -> None:
    asked = {"model": "prose", "candidates": ["a"], "closed": True}
    assert client.post("/v1/rank", json=asked).json()["error"]["param"] == "closed"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/score", r'{"input": ["a", "b\ud800"]}', "input.1"),
        ("/v1/completions", r'{"prompt": "a\udfff"}', "prompt"),
        ("/v1/completions", r'{"stop": "\ud83dx"}', "stop"),
        ("/v1/rank", r'{"candidates": ["a"], "\ud800": 1}', None),
    ],
)
def test_half_of_a_surrogate_pair_is_no_character(
    client: TestClient, path: str, body: str, param: str | None
) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_json", param)


def test_a_whole_surrogate_pair_is_one(client: TestClient) -> None:
    body = r'{"model": "prose", "input": "\ud83d\ude00"}'
    answer = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
    assert answer.json()["data"][0]["characters"] == 1


def test_half_of_a_surrogate_pair_in_a_line_loses_nothing_else(client: TestClient) -> None:
    lines = [r'"\ud800"', '"abc"']
    answer = client.post("/v1/score", content="\n".join(lines), headers=NDJSON)
    first, second = (json.loads(line) for line in answer.text.splitlines())
    assert first["error"]["code"] == "invalid_json"
    assert second["characters"] == 4


def test_more_logprobs_than_an_answer_holds_are_refused(client: TestClient) -> None:
    big = {"input": ["a" * 200_000], "per_character": True, "top": 20}
    drawn = {"max_tokens": 100_000, "n": 2, "logprobs": 20}
    for path, body, param in (("score", big, "input"), ("completions", drawn, "logprobs")):
        answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 413
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("answer_too_large", param)
    line = json.dumps("a" * 200_000) + '\n"abc"\n'
    answer = client.post("/v1/score?per_character=true&top=20", content=line, headers=NDJSON)
    first, second = (json.loads(each) for each in answer.text.splitlines())
    assert first["error"]["code"] == "answer_too_large"
    assert len(second["per_character"]) == 4


def test_a_large_answer_is_whole(client: TestClient) -> None:
    body = {"input": ["abc" * 3000, "b"], "per_character": True, "top": 3}
    data = client.post("/v1/score", json=body).json()["data"]
    assert [len(each["per_character"]) for each in data] == [9001, 2]
    assert data[0]["nats"] == pytest.approx(-sum(e["logprob"] for e in data[0]["per_character"]))


def test_a_prompt_counts_for_every_candidate(client: TestClient) -> None:
    """Nothing is allocated for what would be a thousand times the prompt."""
    body = {"prompt": "a" * 900_000, "candidates": ["b"] * 1000}
    answer = client.post("/v1/rank", json=body)
    assert answer.status_code == 413
    assert client.post("/v1/rank", json={**body, "prompt": "a" * 1_000_001}).status_code == 400


@pytest.mark.parametrize("depth", [50, 500, 900, 2000, 100_000])
def test_no_depth_of_nesting_is_our_mistake(client: TestClient, depth: int) -> None:
    body = '{"input": ' + "[" * depth + r'"\u0061"' + "]" * depth + "}"
    answer = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_a_line_is_not_refused_for_the_company_it_keeps(client: TestClient) -> None:
    """Each fits into an answer; those that arrive together do not."""
    lines = ["abc" * 200] * 100 + ["a" * 110_000]
    body = "\n".join(map(json.dumps, lines))
    answer = client.post("/v1/score?per_character=true&top=20", content=body, headers=NDJSON)
    items = [json.loads(line) for line in answer.text.splitlines()]
    assert [len(item["per_character"]) for item in items] == [len(line) + 1 for line in lines]


def test_a_disk_that_refuses_is_the_last_line(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Spool, piece: bytes) -> None:
        raise StorageFailed("The answer could not be kept until it is read: full.")

    monkeypatch.setattr(Spool, "put", refuse)
    answer = client.post("/v1/score", content=b'"abc"', headers=NDJSON)  # without a line end
    (line,) = map(json.loads, answer.text.splitlines())
    assert line["error"]["code"] == "storage_failed"
