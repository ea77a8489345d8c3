"""OpenAI's own client library against a real server: only the base URL is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from app.settings import Settings
from tests.serving import Served, serving
from tests.web.conftest import put_models


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("openai")
    models = str(put_models(folder / "models"))
    with serving(Settings(models_dir=models, data_dir=folder / "data", port=0)) as url:
        yield url


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["prose", "words"]
    assert client.models.retrieve("words@1").owned_by == "charloom"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("some/body")


def test_a_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="words", prompt=["ab", "c"], max_tokens=8, n=2, seed=1, logprobs=3, echo=True,
        temperature=0.9, top_p=0.95, frequency_penalty=0.1, presence_penalty=0.1, stop=["ja"],
        logit_bias={"3": 1}, user="me", suffix=None,
    )  # fmt: skip
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    first = answer.choices[0]
    assert first.text.startswith("ab")
    assert first.logprobs is not None
    assert first.logprobs.tokens is not None
    assert first.logprobs.tokens[:2] == ["a", "b"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_a_stream(client: openai.OpenAI) -> None:
    body = {"model": "prose", "prompt": "a", "max_tokens": 300, "seed": 7}
    whole = client.completions.create(**body).choices[0]  # type: ignore[call-overload]
    chunks = list(
        client.completions.create(**body, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.text
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 300


def test_mistakes_are_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="words", prompt="a", max_tokens=-1)
    assert caught.value.param == "max_tokens"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="nobody", prompt="a")


def test_leaving_a_stream_frees_its_row(client: openai.OpenAI, server: Served) -> None:
    stream = client.completions.create(
        model="prose", prompt="a", max_tokens=100_000, n=8, stream=True
    )
    next(iter(stream))
    stream.close()
    for _ in range(200):
        text = httpx.get(f"{server}/metrics").text
        if "charloom_engine_rows_running 0.0" in text and 'why="cancelled"' in text:
            break
    else:
        raise AssertionError(text)
