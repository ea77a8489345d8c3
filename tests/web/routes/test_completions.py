from __future__ import annotations

import json
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.engine.piece import Piece, floats
from app.main import create_app
from app.settings import Settings
from app.web.routes.completions import mean_logprob


def complete(client: TestClient, **body: Any) -> Any:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, status: int = 400, **body: Any) -> Any:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def streamed(client: TestClient, **body: Any) -> list[Any]:
    """The events of a stream, without the closing one."""
    answer = client.post("/v1/completions", json={**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def joined(events: list[Any], index: int) -> dict[str, Any]:
    """What the events of one choice say together."""
    whole: dict[str, Any] = {"text": "", "arrays": {}, "finish_reason": None}
    for event in events:
        for choice in event["choices"]:
            if choice["index"] == index:
                whole["text"] += choice["text"]
                whole["finish_reason"] = choice["finish_reason"]
                for name, values in (choice["logprobs"] or {}).items():
                    whole["arrays"].setdefault(name, []).extend(values)
    return whole


def test_an_answer_has_every_field(client: TestClient) -> None:
    answer = complete(client, prompt="ab", max_tokens=5, seed=1, ignore_boundary=True)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "words@1"
    assert answer["seed"] == 1
    (choice,) = answer["choices"]
    assert len(choice["text"]) == 5
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 5, 7)


def test_the_seed_decides_the_text(client: TestClient) -> None:
    body = {"prompt": "a", "max_tokens": 40, "ignore_boundary": True}
    drawn = complete(client, **body)
    again = complete(client, **body, seed=drawn["seed"])
    assert again["choices"] == drawn["choices"]
    assert complete(client, **body, seed=drawn["seed"] + 1)["choices"] != drawn["choices"]


def test_a_line_ends_at_the_boundary_unless_told_otherwise(client: TestClient) -> None:
    ended = complete(client, prompt=[""] * 20, max_tokens=200, seed=3)["choices"]
    assert {choice["finish_reason"] for choice in ended} == {"stop"}
    going = complete(client, prompt="", max_tokens=200, seed=3, ignore_boundary=True)["choices"][0]
    assert going["finish_reason"] == "length"
    assert len(going["text"]) == 200


@pytest.mark.parametrize("model", ["words", "prose"])
def test_a_stream_says_what_the_plain_answer_says(client: TestClient, model: str) -> None:
    body = {"model": model, "prompt": ["ab", "汉x"], "n": 2, "max_tokens": 30, "seed": 5,
            "logprobs": 2, "echo": True, "stop": ["ca", "bb"]}  # fmt: skip
    plain = complete(client, **body)
    events = streamed(client, **body)
    for choice in plain["choices"]:
        whole = joined(events, choice["index"])
        assert whole["text"] == choice["text"]
        assert whole["finish_reason"] == choice["finish_reason"]
        assert whole["arrays"] == choice["logprobs"]


def test_usage_in_a_stream(client: TestClient) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    events = streamed(client, prompt="a", max_tokens=4, seed=1, stream_options=options)
    assert all(event["usage"] is None for event in events[:-1])
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] >= 1


def test_echo_with_logprobs_has_an_entry_for_each_symbol(client: TestClient) -> None:
    answer = complete(client, prompt="az b", max_tokens=1, echo=True, logprobs=1, temperature=0)
    arrays = answer["choices"][0]["logprobs"]
    assert answer["unknown_characters"] == "z"
    assert {len(values) for values in arrays.values()} == {5}
    assert arrays["tokens"][:4] == ["a", "<unknown>", " ", "b"]
    assert arrays["token_logprobs"][0] is None
    assert arrays["top_logprobs"][0] is None
    assert arrays["text_offset"] == [0, 1, 2, 3, 4]
    names = ("tokens", "token_logprobs", "top_logprobs")
    for token, logprob, top in zip(*(arrays[name][1:] for name in names), strict=True):
        assert top[token] == logprob
        assert len(top) <= 2
    # Greedy: what was drawn is the likeliest.
    assert arrays["token_logprobs"][4] == max(arrays["top_logprobs"][4].values())
    assert answer["choices"][0]["text"].startswith("az b")


def test_echo_without_a_completion_scores(client: TestClient) -> None:
    choice = complete(client, prompt="abc", max_tokens=0, echo=True, logprobs=0)["choices"][0]
    assert choice["text"] == "abc"
    scored = client.post(
        "/v1/score", json={"input": "abc", "per_character": True}
    ).json()["data"][0]["per_character"]  # fmt: skip
    assert choice["logprobs"]["token_logprobs"][1:] == [each["logprob"] for each in scored[1:3]]


def test_ids_are_prompts_and_the_boundary_may_lead(client: TestClient) -> None:
    body: dict[str, Any] = {"max_tokens": 9, "seed": 2, "ignore_boundary": True, "echo": True}
    text = complete(client, prompt="ab", **body)["choices"][0]["text"]
    ids = [3, 4]  # 0 and 1 are reserved, 2 is the space
    assert complete(client, prompt=ids, **body)["choices"][0]["text"] == text
    led = complete(client, prompt=[[1, *ids]], logprobs=1, **body)["choices"][0]
    assert led["text"] == text
    assert led["logprobs"]["tokens"][0] == "<boundary>"
    assert led["logprobs"]["text_offset"][:3] == [0, 0, 1]
    assert led["logprobs"]["token_logprobs"][0] is None
    assert isinstance(led["logprobs"]["token_logprobs"][1], float)


def test_stop_strings_are_not_part_of_the_text(client: TestClient) -> None:
    body = {"prompt": "", "max_tokens": 300, "seed": 11, "ignore_boundary": True}
    free = complete(client, **body)["choices"][0]["text"]
    stop = free[20:22]
    choice = complete(client, **body, stop=stop)["choices"][0]
    assert choice["text"] == free[: free.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_best_of_gives_the_likeliest(client: TestClient) -> None:
    body = {"prompt": "a", "max_tokens": 12, "seed": 4, "logprobs": 0}

    def mean(choice: Any) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return math.fsum(values) / len(values)

    every = complete(client, **body, n=6)["choices"]
    best = complete(client, **body, n=2, best_of=6)["choices"]
    assert [choice["index"] for choice in best] == [0, 1]
    wanted = sorted(every, key=mean, reverse=True)[:2]
    assert [choice["text"] for choice in best] == [choice["text"] for choice in wanted]


def test_a_known_prefix_is_counted_as_cached(client: TestClient) -> None:
    body = {"model": "prose", "prompt": "abc " * 200, "max_tokens": 1, "seed": 1}
    complete(client, **body)
    cached = complete(client, **body)["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 400


def test_a_bias_forbids_and_forces(client: TestClient) -> None:
    body = {"prompt": "", "max_tokens": 30, "seed": 1, "ignore_boundary": True}
    assert complete(client, **body, logit_bias={"3": 100})["choices"][0]["text"] == "a" * 30
    assert "a" not in complete(client, **body, logit_bias={"3": -100})["choices"][0]["text"]


def test_an_empty_list_of_ids_is_an_empty_prompt(client: TestClient) -> None:
    asked = {"max_tokens": 5, "temperature": 0}
    choices = complete(client, prompt=[[], [3]], **asked)["choices"]
    assert choices[0]["text"] == complete(client, prompt="", **asked)["choices"][0]["text"]
    assert choices[1]["text"] == complete(client, prompt="a", **asked)["choices"][0]["text"]


def test_null_is_left_out_and_known_but_idle_fields_pass(client: TestClient) -> None:
    answer = complete(client, prompt=None, max_tokens=None, logit_bias=None, stop=None, suffix=None,
                      best_of=None, user="x", metadata={"a": "b"}, seed=None)  # fmt: skip
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"temperature": 5.1}, "temperature", "out_of_range"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"max_tokens": 100_001}, "max_tokens", "out_of_range"),
        ({"max_tokens": -1}, "max_tokens", "out_of_range"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"n": 0}, "n", "out_of_range"),
        ({"n": 10**30}, "n", "out_of_range"),
        ({"n": 3, "best_of": 2}, "best_of", "out_of_range"),
        ({"best_of": 2, "stream": True}, "best_of", "unsupported"),
        ({"suffix": "x"}, "suffix", "unsupported"),
        ({"stop": ["x"] * 17}, "stop", "out_of_range"),
        ({"stop": [""]}, "stop", "out_of_range"),
        ({"logprobs": 21}, "logprobs", "out_of_range"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1.[key]", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "out_of_range"),
        ({"prompt": 7}, "prompt", "invalid_type"),
        ({"prompt": []}, "prompt", "out_of_range"),
        ({"prompt": [99]}, "prompt", "out_of_range"),
        ({"prompt": "q", "strict": True}, "prompt", "unknown_characters"),
        ({"prompt": ["x"] * 1001}, "prompt", "out_of_range"),
        ({"prompt": [3] * 250_001}, "prompt", "out_of_range"),
        ({"prompt": [[3] * 125_001] * 2}, "prompt", "out_of_range"),
        ({"prompt": [3, True]}, "prompt", "invalid_type"),
        ({"prompt": [[3], "a"]}, "prompt", "invalid_type"),
        ({"prompt": [[3], [-1]]}, "prompt", "invalid_type"),
        ({"prompt": [2**31]}, "prompt", "invalid_type"),
        ({"prompt": ["a", 3]}, "prompt", "invalid_type"),
        ({"prompt": [None]}, "prompt", "invalid_type"),
        ({"logit_bias": {str(place): 0 for place in range(30_001)}}, "logit_bias", "out_of_range"),
        ({"temprature": 1}, "temprature", "unknown_field"),
    ],
)
def test_what_is_wrong_is_named(
    client: TestClient, body: dict[str, Any], param: str, code: str
) -> None:
    error = refused(client, **body)
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")


def test_an_unknown_model_is_named_with_those_there_are(client: TestClient) -> None:
    error = refused(client, 404, model="wrods")
    assert error["code"] == "model_not_found"
    assert "wrods" in error["message"]
    assert "prose, words" in error["message"]


def test_nan_is_no_number(client: TestClient) -> None:
    answer = client.post(
        "/v1/completions",
        content=b'{"temperature": NaN}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400
    assert "NaN" in answer.json()["error"]["message"]


def test_more_than_the_server_takes_is_refused_at_once(client: TestClient) -> None:
    body = {"prompt": [""] * 1000, "n": 128, "max_tokens": 100_000}
    assert refused(client, 413, **body)["code"] == "answer_too_large"
    assert refused(client, 413, **body, stream=True)["code"] == "answer_too_large"  # of choices
    assert refused(client, 413, **body | {"n": 1}, stream=True)["code"] == "too_large"


def test_a_late_request_is_ended_and_its_stream_says_so(settings: Settings) -> None:
    hurried = settings.model_copy(update={"request_seconds": 0.05})
    body = {"prompt": [""] * 20, "max_tokens": 100_000, "ignore_boundary": True}
    with TestClient(create_app(hurried)) as client:
        error = refused(client, 503, **body)
        assert error["code"] == "deadline_exceeded"
        answer = client.post("/v1/completions", json={**body, "stream": True})
        last = answer.text.strip().rpartition("\n\n")[2]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"


def test_a_text_in_which_nothing_was_drawn_ranks_last() -> None:
    assert mean_logprob(Piece(0)) == -math.inf
    assert mean_logprob(Piece(0, logprobs=floats([-1.0, -2.0]))) == -1.5


def test_a_deadline_is_not_to_be_tried_again(settings: Settings) -> None:
    """OpenAI's client would ask twice more, and wait as long each time."""
    with TestClient(create_app(settings.model_copy(update={"request_seconds": 0.05}))) as client:
        answer = client.post(
            "/v1/completions", json={"max_tokens": 100_000, "n": 20, "ignore_boundary": True}
        )
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert answer.headers["x-should-retry"] == "false"
