"""No request costs more than its size: every route, with bodies made to be expensive.

The routes, their bodies and their parameters are read from the application's own
description, so a new route is attacked too. Two things are measured for each request: how
much of the event loop's thread it uses between two turns of the loop, how much of all threads
until it is refused (processor time, so a busy machine changes little), and the peak of memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.main import create_app
from app.settings import Settings
from app.web.http.bodies import Body
from app.web.schemas import CompletionRequest, LineOfScores, RankRequest, ScoreRequest
from tests.routes import routes

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
SMALL: Final = 60_000
"""So small that it is parsed on the loop itself."""
SIZE: Final = 256 << 10
FULL: Final = CompletionRequest.most.bytes
_HEAD: Final = 60_000
"""Of a request's target or headers: just under what the server reads."""

T = TypeVar("T")


# --- what is sent


UNITS: Final = {
    "integers": "1,",
    "large integers": "1234567890123456789012,",
    "longest integers": "9" * 4300 + ",",
    "floats": "-0.12345678901234567,",
    "booleans": "true,",
    "nulls": "null,",
    "strings": '"a",',
    "escapes": r'"\"\\","\ud83d\ude00",',
    "half escapes": r'"\ud800",',
    "lists": "[],",
    "nested lists": "[[[[[[[[]]]]]]]],",
    "lists of integers": "[1,2,3],",
    "objects": "{},",
    "objects with a key": '{"a":1},',
}
#: What stands in a string: nothing, or something that looks like JSON.
CHARACTERS: Final = (
    "a",
    "汉",
    "😀",
    r"\n",
    r"\"",
    r"\\",
    r"\u6c49",
    r"\ud83d\ude00",
    ",",
    "[",
    "{",
)


def repeated(unit: str, size: int) -> str:
    return unit * max(1, size // len(unit.encode()))


def array(unit: str, size: int) -> str:
    return "[" + repeated(unit, size).rstrip(",") + "]"


def keys(value: str, size: int) -> str:
    """An object of as many distinct keys as fit."""
    count = size // (len(value) + 10)
    return "{" + ",".join(f'"{place:07}":{value}' for place in range(count)) + "}"


def same_key(name: str, size: int) -> str:
    return "{" + repeated(f'"{name}":0,', size).rstrip(",") + "}"


def values(size: int) -> Iterator[str]:
    """Values of every shape, of about ``size`` bytes."""
    for unit in UNITS.values():
        yield array(unit, size)
    for value in ("1", '""', "[]", "{}", "null"):
        yield keys(value, size)
    yield same_key("a", size)
    for character in CHARACTERS:
        yield f'"{repeated(character, size)}"'
    yield "9" * size
    yield "0." + "9" * size
    yield "1e" + "9" * size
    yield "[" * size
    yield '{"a":' * (size // 5)
    yield "[" * 900 + "]" * 900 + " " * size
    yield " " * size + "1"
    yield '"' + "a" * size  # without its end


def bodies(fields: Mapping[str, Any]) -> Iterator[str]:
    """A value as the whole body, and in the place of every field."""
    for size in (SMALL, SIZE):
        for value in values(size):
            yield value
            for name, schema in fields.items():
                if size == SMALL or schema.get("type") not in ("boolean", "integer", "number"):
                    yield f'{{"{name}":{value}}}'
    for name in fields:  # one field is fine and the rest is not
        yield f'{{"{name}":1,{keys("1", SIZE)[1:]}'


# --- what is measured


@dataclass
class Cost:
    status: int = 0
    answer: bytes = b""
    step_seconds: float = 0.0  # of the loop's thread, between two turns
    cpu_seconds: float = 0.0  # of all threads
    peak_bytes: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)


class Server:
    """The application on a loop of its own, without sockets: what is measured is ours."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.runner = asyncio.Runner()
        self._lifespan = app.router.lifespan_context(app)
        self.runner.run(self._lifespan.__aenter__())

    def close(self) -> None:
        self.runner.run(self._lifespan.__aexit__(None, None, None))
        self.runner.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        more: Mapping[str, str] | None = None,
        *,
        kind: str | None = None,
        memory: bool = False,
    ) -> Cost:
        """``more``: ``query``, and headers; ``kind``: the Content-Type."""
        said = dict(more or {})
        if kind is not None:
            said["content-type"] = kind
        return self.runner.run(self._measured(method, path, body, memory, said))

    async def _measured(
        self, method: str, path: str, body: bytes, memory: bool, more: dict[str, str]
    ) -> Cost:
        cost = Cost()
        ended = asyncio.Event()
        watching = asyncio.create_task(_longest_step(cost, ended))
        await asyncio.sleep(0)
        if memory:
            tracemalloc.start()
        try:
            started = time.process_time()
            await self._answer(cost, method, path, body, more)
            cost.cpu_seconds = time.process_time() - started
            if memory:
                cost.peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            if memory:
                tracemalloc.stop()
            ended.set()
            await watching
        return cost

    async def _answer(
        self, cost: Cost, method: str, path: str, body: bytes, more: dict[str, str]
    ) -> None:
        query = more.pop("query", "")
        headers = {"host": "localhost", "content-length": str(len(body)), **more}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": method, "path": path, "raw_path": path.encode("latin-1", "replace"),
            "query_string": query.encode(), "root_path": "", "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
        }  # fmt: skip
        pieces = _pieces(body)

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)  # as a socket would
            piece = await anext(pieces, None)
            if piece is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                cost.status, cost.headers = message["status"], dict(message["headers"])
            elif len(cost.answer) < 1 << 20:
                cost.answer += message.get("body", b"")

        await self.app(scope, receive, send)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 64 << 10):
        yield body[start : start + (64 << 10)]
    yield b""


async def _longest_step(cost: Cost, ended: asyncio.Event) -> None:
    last = time.thread_time()
    while not ended.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        cost.step_seconds, last = max(cost.step_seconds, now - last), now


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Server]:
    server = Server(create_app(settings))
    gc.freeze()  # as ``charloom serve`` does; the tests themselves are garbage enough
    yield server
    gc.unfreeze()
    server.close()


@pytest.fixture(scope="module")
def most_seconds() -> float:
    """50 ms; longer where Python is slower than 15 ms for a fixed piece of work.

    A busy processor makes it slower, and so does measuring coverage.
    """
    return 0.05 * max(1.0, *(_work_seconds() / 0.015 for _ in range(3)))


def _work_seconds() -> float:
    started = time.thread_time()
    total = 0
    for number in range(100_000):
        total += _digits(number)
    assert total == 488_890
    return time.thread_time() - started


def _digits(number: int) -> int:
    return len(str(number))


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    fields: dict[str, Any]  # of its JSON body, with their schemas
    parameters: list[tuple[str, str]]  # where, name

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def described(app: FastAPI) -> list[Route]:
    """Every route that is in the application's own description."""
    found = []
    for path, methods in app.openapi()["paths"].items():
        for method, said in methods.items():
            content = said.get("requestBody", {}).get("content", {})
            schema = content.get(JSON, {}).get("schema", {})
            parameters = [(each["in"], each["name"]) for each in said.get("parameters", [])]
            found.append(Route(method.upper(), path, schema.get("properties", {}), parameters))
    return found


ROUTES: Final = described(create_app(Settings(training_slots=0)))
WITH_JSON: Final = [route for route in ROUTES if route.fields]
each_route = pytest.mark.parametrize("route", ROUTES, ids=str)
each_with_json = pytest.mark.parametrize("route", WITH_JSON, ids=str)


def filled(path: str, value: str = "words") -> str:
    """The path with every parameter replaced."""
    parts = [value if part.startswith("{") else part for part in path.split("/")]
    return "/".join(parts)


def check(cost: Cost, size: int, most_seconds: float, *, refused: bool = True) -> None:
    """In one step at most 50 ms; a refusal in our shape; memory as for the body."""
    assert cost.step_seconds < most_seconds, cost
    assert cost.peak_bytes < 12 * size + (4 << 20), cost.peak_bytes
    if refused:
        # Parsing in a thread holds the interpreter's lock: its time is the loop's too.
        assert cost.cpu_seconds < (2 + 2 * size / (1 << 20)) * most_seconds, cost
        assert 400 <= cost.status < 500, (cost.status, cost.answer[:200])
        error = json.loads(cost.answer)["error"]
        assert set(error) == {"message", "type", "param", "code", "request_id"}
        assert len(error["message"]) < 1000
    else:
        assert cost.status < 500, cost.answer[:200]


# --- bodies


def test_every_route_is_attacked() -> None:
    app = create_app(Settings(training_slots=0))
    hidden = {path for _, path in routes(app)} - {route.path for route in ROUTES}
    assert {path for path in hidden if path.startswith("/v1")} == set()
    assert len(WITH_JSON) >= 5


@each_with_json
def test_no_body_of_any_shape_stops_the_loop(
    server: Server, route: Route, most_seconds: float
) -> None:
    for body in bodies(route.fields):
        cost = server.ask(route.method, filled(route.path), body.encode(), kind=JSON)
        # Some are fine: a prompt of 256 KiB, an ignored field with anything in it.
        check(cost, SIZE, most_seconds, refused=cost.status != 200)


@each_with_json
def test_no_refused_body_costs_more_memory_than_its_size(
    server: Server, route: Route, most_seconds: float
) -> None:
    name = next(each for each in route.fields if each != "model")
    for unit in UNITS.values():
        body = f'{{"{name}":{array(unit, SIZE)}}}'.encode()
        cost = server.ask(route.method, filled(route.path), body, kind=JSON, memory=True)
        if cost.status != 200:  # else what was drawn counts as well
            check(cost, SIZE, most_seconds * 9)  # memory is traced, which takes time


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@each_with_json
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_combination_is_our_mistake(server: Server, route: Route, data: st.DataObject) -> None:
    """Any fields with any values, also many of one: an answer or a refusal in our shape."""
    fields = data.draw(
        st.dictionaries(st.sampled_from(sorted(route.fields)), json_values, max_size=4)
    )
    for name in data.draw(st.sets(st.sampled_from(sorted(route.fields)), max_size=1)):
        fields[name] = [data.draw(json_values)] * data.draw(st.sampled_from([0, 1, 17, 1001]))
    fields |= {"max_tokens": 1} if "max_tokens" in route.fields else {}
    cost = server.ask(route.method, filled(route.path), json.dumps(fields).encode(), kind=JSON)
    assert cost.status < 500, (fields, cost.answer[:300])
    if cost.status >= 400:
        assert json.loads(cost.answer)["error"]["code"]


WORST: Final = {
    "candidates": ("/v1/rank", '{"candidates":%s}', "1,"),
    "prompt of booleans": ("/v1/completions", '{"prompt":%s}', "true,"),
    "prompt of lists": ("/v1/completions", '{"prompt":%s}', "[],"),
    "stop": ("/v1/completions", '{"stop":%s}', "1,"),
    "input": ("/v1/score", '{"input":%s}', "1,"),
    "floats": ("/v1/completions", '{"prompt":%s}', UNITS["floats"]),
    "escapes": ("/v1/completions", '{"prompt":%s}', UNITS["escapes"]),
}


@pytest.mark.parametrize("shape", WORST)
def test_the_worst_shapes_at_the_full_size(server: Server, shape: str, most_seconds: float) -> None:
    path, form, unit = WORST[shape]
    body = (form % array(unit, FULL - 100)).encode()
    check(server.ask("POST", path, body, kind=JSON), FULL, most_seconds)
    check(server.ask("POST", path, body, kind=JSON, memory=True), FULL, most_seconds * 9)


def test_unknown_keys_at_the_full_size(server: Server, most_seconds: float) -> None:
    """As many as a body may have, and more: the first one ends it."""
    for size, code in ((31_000 * 11, "unknown_field"), (FULL - 100, "body_too_large")):
        body = keys("1", size).encode()
        cost = server.ask("POST", "/v1/completions", body, kind=JSON)
        check(cost, size, most_seconds)
        assert json.loads(cost.answer)["error"]["code"] == code


@pytest.mark.parametrize("body", [RankRequest, ScoreRequest, CompletionRequest])
def test_a_body_beyond_the_limit_names_it(server: Server, body: type[Body]) -> None:
    path = {RankRequest: "rank", ScoreRequest: "score", CompletionRequest: "completions"}[body]
    cost = server.ask("POST", f"/v1/{path}", b" " * (body.most.bytes + 1), kind=JSON)
    assert (cost.status, json.loads(cost.answer)["error"]["code"]) == (413, "body_too_large")
    assert f"{body.most.bytes:,}" in json.loads(cost.answer)["error"]["message"]


LARGE: Final[dict[str, tuple[str, Callable[[], dict[str, Any]]]]] = {
    "a thousand texts of a thousand": ("score", lambda: {"input": ["abcdefghij" * 100] * 1000}),
    "a million ideographs": ("score", lambda: {"model": "prose", "input": "汉" * 1_000_000}),
    "a prompt of a million": ("completions", lambda: {"prompt": "ab" * 500_000, "max_tokens": 0}),
    "a thousand prompts of ids": ("completions", lambda: {"prompt": [[5] * 250] * 1000,
                                                          "max_tokens": 0}),
    "a thousand candidates": ("rank", lambda: {"candidates": ["abcdefghij" * 10] * 1000}),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_what_is_large_and_right_is_answered_without_stopping_the_loop(
    server: Server, name: str, most_seconds: float
) -> None:
    path, make = LARGE[name]
    cost = server.ask("POST", f"/v1/{path}", json.dumps(make()).encode(), kind=JSON)
    assert cost.status == 200, cost.answer[:300]
    assert cost.step_seconds < 2 * most_seconds


# --- lines of NDJSON


@pytest.mark.parametrize(
    "line",
    ["1", "{}", '{"a":1}', "[" * 60_000, keys("1", 60_000), keys("1", LineOfScores.most.bytes - 9),
     array("1,", LineOfScores.most.bytes - 9), array("[],", 1 << 20), "", '"' + "a" * 60_000],
    ids=lambda line: f"{line[:6]} of {len(line)}",
)  # fmt: skip
def test_lines_that_are_wrong_add_up_to_nothing(
    server: Server, line: str, most_seconds: float
) -> None:
    """Between two of them others are served, and each has its own error."""
    body = f"{line}\n".encode() * max(2, SIZE // (len(line) + 40))
    cost = server.ask("POST", "/v1/score", body, kind=NDJSON, memory=True)
    assert cost.status == 200
    assert cost.step_seconds < 9 * most_seconds  # with memory traced
    assert cost.peak_bytes < 12 * len(body) + (8 << 20)
    for answer in cost.answer.splitlines()[:3]:
        assert json.loads(answer)["error"]["code"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
@pytest.mark.parametrize("kind", [JSON, NDJSON])
def test_a_compressed_body_is_of_no_supported_kind(
    server: Server, encoding: str, kind: str
) -> None:
    cost = server.ask("POST", "/v1/score", b'"abc"\n', {"content-encoding": encoding}, kind=kind)
    assert cost.status == 415
    assert json.loads(cost.answer)["error"]["code"] == "unsupported_encoding"


# --- parameters


HOSTILE: Final = ("", "a" * _HEAD, "9" * _HEAD, "\x00", "%", "/", "@", "汉", "'" * 99, "-1", "1e9")


@each_route
def test_no_parameter_is_our_mistake(server: Server, route: Route, most_seconds: float) -> None:
    """In the path, the query and the headers: long, empty, repeated, of the wrong type."""
    asked: list[tuple[str, dict[str, str]]] = []
    for value in HOSTILE:
        if "{" in route.path:
            asked.append((filled(route.path, value), {}))
        for place, name in route.parameters:
            if place == "query":
                asked.append((filled(route.path), {"query": urlencode({name: value})}))
            elif place == "header" and value.isascii() and value.isprintable():
                asked.append((filled(route.path), {name: value}))
    for place, name in route.parameters:
        if place == "query":
            asked.append((filled(route.path), {"query": f"{name}=&" * (_HEAD // len(name))}))
    for path, more in asked:
        if route.fields:
            more["content-type"] = JSON
        cost = server.ask(route.method, path, b"{}" if route.fields else b"", more)
        check(cost, _HEAD, most_seconds, refused=cost.status >= 300)


@pytest.mark.parametrize("kind", [";" * _HEAD, "multipart/form-data; " + "a=b;" * (_HEAD // 4)])
def test_a_long_content_type_is_not_read_to_its_end(
    server: Server, kind: str, most_seconds: float
) -> None:
    check(server.ask("POST", "/v1/datasets", b"x", kind=kind), _HEAD, most_seconds / 5)


PART: Final = b'--b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n'


@pytest.mark.parametrize(
    "form",
    [b"--b\r\n" * 50_000, b"--b\r\n" + b"a: b\r\n" * 50_000, b"--b\r\na:" + b"b" * SIZE,
     PART % b"name" + b"x" * SIZE, PART % (b"n" * 9000), b"\r\n" * SIZE, (PART % b"x") * 5000,
     b"".join(PART % str(n).encode() + b"\r\n" for n in range(5000)),
     PART % b"file" + b"\r\n--b" * 50_000],
    ids=range(9),
)  # fmt: skip
def test_no_form_costs_more_than_its_size(server: Server, form: bytes, most_seconds: float) -> None:
    kind = "multipart/form-data; boundary=b"
    cost = server.ask("POST", "/v1/datasets", form, kind=kind, memory=True)
    check(cost, len(form), most_seconds)
