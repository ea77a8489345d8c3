"""Datasets over HTTP: bodies and forms, cut short, too long, wrong, twice at once."""

from __future__ import annotations

import hashlib
import itertools
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.jobs.making import WORDS, wait_for
from tests.serving import serving

_NUMBERS = itertools.count()


class Away(NamedTuple):
    """A server in a process of its own."""

    url: str
    settings: Settings


PLAIN = {"content-type": "text/plain; charset=utf-8"}


@pytest.fixture
def text() -> bytes:
    """A text that nobody has sent before."""
    return "\n".join([*WORDS, f"word {next(_NUMBERS)}"]).encode()


def left_over(settings: Settings) -> list[str]:
    return [path.name for path in (settings.data_dir / "uploads").glob("*")]


def kept(settings: Settings) -> int:
    return len(list((settings.data_dir / "datasets").glob("*")))


def post(client: TestClient, content: Any, name: str = "words", **params: str) -> Any:
    asked = {"name": name, **params}
    return client.post("/v1/datasets", params=asked, content=content, headers=PLAIN)


def test_a_text_is_kept_and_described(client: TestClient, settings: Settings, text: bytes) -> None:
    answer = post(client, text)
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{told['id']}"
    assert told["id"].startswith("ds_")
    assert told["sha256"] == hashlib.sha256(text).hexdigest()
    assert (told["object"], told["name"], told["format"]) == ("dataset", "words", "lines")
    assert (told["bytes"], told["records"]) == (len(text), len(WORDS) + 1)
    assert told["distinct_records"] == told["records"]
    assert any("few" in warning for warning in told["warnings"])
    assert abs(told["created_at"] - time.time()) < 100
    assert client.get(answer.headers["location"]).json() == told
    assert left_over(settings) == []


def test_the_same_bytes_give_the_same(client: TestClient, settings: Settings, text: bytes) -> None:
    first, before = post(client, text), kept(settings)
    again = post(client, text, name="by another name")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert kept(settings) == before


def test_the_same_bytes_at_once(client: TestClient, settings: Settings, text: bytes) -> None:
    before = kept(settings)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(client, text), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert kept(settings) == before + 1
    assert left_over(settings) == []


def test_a_text_in_pieces_of_any_size(client: TestClient, text: bytes) -> None:
    def pieces() -> Iterator[bytes]:
        for place in range(0, len(text), 3):
            yield text[place : place + 3]

    assert post(client, pieces()).json()["sha256"] == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "TEXT/PLAIN", "application/octet-stream",
             "application/x-www-form-urlencoded", 'text/plain; charset="UTF-8"'],
)  # fmt: skip
def test_what_a_plain_file_is_sent_as(client: TestClient, text: bytes, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post("/v1/datasets?name=a", content=text, headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "kind", ["application/json", "text/html", "text/plain; charset=latin1", "image/png", "x"]
)
def test_other_kinds_are_refused(client: TestClient, text: bytes, kind: str) -> None:
    answer = client.post("/v1/datasets?name=a", content=text, headers={"content-type": kind})
    assert answer.status_code == 415


def test_a_form(client: TestClient, text: bytes) -> None:
    answer = client.post(
        "/v1/datasets",
        data={"name": "Wörter", "format": "text"},
        files={"file": ("C:\\words.txt", text, "text/plain")},
    )
    assert answer.status_code == 201, answer.text
    assert (answer.json()["name"], answer.json()["format"]) == ("Wörter", "text")
    assert answer.json()["sha256"] == hashlib.sha256(text).hexdigest()


def test_a_form_gives_its_files_name(client: TestClient, text: bytes) -> None:
    answer = client.post("/v1/datasets", files={"file": ("../../etc/words.txt", text)})
    assert answer.json()["name"] == "words.txt"


def raw_form(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    return (
        b"".join(
            b"--B\r\nContent-Disposition: form-data; "
            + head.encode()
            + b"\r\n\r\n"
            + body
            + b"\r\n"
            for head, body in parts
        )
        + end
    )


FILE = ('name="file"; filename="a.txt"', "\n".join(WORDS).encode())


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [(raw_form(('name="name"', b"a")), "file", "missing"),
     (raw_form(FILE, end=b""), None, "invalid_form"),
     (raw_form(FILE)[:-20], None, "invalid_form"),
     (b"", None, "invalid_form"),
     (b"nonsense", None, "invalid_form"),
     (raw_form(FILE, FILE), "file", "invalid_form"),
     (raw_form(FILE, ('name="name"', b"a"), ('name="name"', b"b")), "name", "invalid_form"),
     (raw_form(FILE, ('name="colour"', b"a")), "colour", "unknown_field"),
     (raw_form(FILE, ('name="format"', b"words")), "format", "invalid_value"),
     (raw_form(FILE, ('name="name"', b"x" * 5000)), "name", "invalid_form"),
     (raw_form(FILE, ('name="name"', b"a/b")), "name", "invalid_name"),
     (raw_form(*[(f'name="f{n}"', b"a") for n in range(20)]), None, "invalid_form"),
     (raw_form(('name="file"', FILE[1])), "name", "missing")],
)  # fmt: skip
def test_a_form_that_is_wrong(
    client: TestClient, settings: Settings, body: bytes, param: str | None, code: str
) -> None:
    headers = {"content-type": "multipart/form-data; boundary=B"}
    answer = client.post("/v1/datasets", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)
    assert left_over(settings) == []


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary(client: TestClient, kind: str) -> None:
    answer = client.post("/v1/datasets", content=raw_form(FILE), headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_form")


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [(b"", "empty_text", "empty"), (b"abc\xffdef", "invalid_utf8", "byte 3"),
     (b"a\0b\n" * 9, "nul_in_text", "byte 1"), (b"\xef\xbb\xbf", "empty_text", "empty"),
     ("汉".encode()[:2], "invalid_utf8", "byte 0")],
)  # fmt: skip
def test_a_text_that_cannot_be_used(
    client: TestClient, settings: Settings, content: bytes, code: str, says: str
) -> None:
    before = kept(settings)
    answer = post(client, content)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert says in answer.json()["error"]["message"]
    assert (kept(settings), left_over(settings)) == (before, [])


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 201, " "])
def test_a_name_that_is_none(client: TestClient, text: bytes, name: str) -> None:
    answer = post(client, text, name=name)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "name"


def test_no_name_at_all(client: TestClient, text: bytes) -> None:
    answer = client.post("/v1/datasets", content=text, headers=PLAIN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "missing")


def test_an_unknown_format(client: TestClient, text: bytes) -> None:
    answer = post(client, text, format="words")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "format")


def test_the_other_format_is_a_conflict(client: TestClient, text: bytes) -> None:
    assert post(client, text, format="lines").status_code == 201
    answer = post(client, text, format="text")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "dataset_format_differs")
    assert post(client, text, format="lines").status_code == 200


def test_pages(client: TestClient) -> None:
    came = [post(client, f"{n}\n".encode() + b"\n".join(w.encode() for w in WORDS)).json()["id"]
            for n in range(3)]  # fmt: skip
    first = client.get("/v1/datasets", params={"limit": 2}).json()
    assert [each["id"] for each in first["data"]] == came[:0:-1]
    assert (first["last_id"], first["has_more"]) == (came[1], True)
    rest = client.get("/v1/datasets", params={"limit": 1, "after": came[1]}).json()
    assert rest["first_id"] == came[0]


@pytest.mark.parametrize(
    "after", ["x", "ds_", "ds_" + "0" * 26, "ds_\0", "job_01J00000000000000000000000"]
)
def test_a_page_after_nothing(client: TestClient, after: str) -> None:
    answer = client.get("/v1/datasets", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


@pytest.mark.parametrize("id", ["x", "ds_x", "ds_" + "0" * 26, "%00", "ds_%00", "%ED%A0%80"])
def test_an_unknown_dataset(client: TestClient, id: str) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/v1/datasets/{id}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "dataset_not_found"


def test_deleted_while_in_use_and_after(client: TestClient, text: bytes) -> None:
    dataset = post(client, text).json()["id"]
    body = {"model": "words-of-mine", "dataset": dataset, "training": {"max_steps": 3}}
    job = client.post("/v1/jobs", json=body).json()
    refused = client.delete(f"/v1/datasets/{dataset}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "dataset_in_use")
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    gone = client.delete(f"/v1/datasets/{dataset}")
    assert gone.json() == {"id": dataset, "object": "dataset", "deleted": True}
    assert client.get(f"/v1/datasets/{dataset}").status_code == 404
    assert client.get(f"/v1/jobs/{job['id']}").json()["dataset"] == dataset


@pytest.fixture(scope="module")
def small(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder: Path = tmp_path_factory.mktemp("small")
    return settings.model_copy(update={"max_body_mb": 1, "data_dir": folder, "port": 0})


def test_too_long_in_one_piece_or_many(small: Settings) -> None:
    long = b"word\n" * 250_000
    with TestClient(create_app(small)) as client:
        answers: list[Any] = [
            post(client, long),
            post(client, iter([b"word\n" * 1000] * 300)),
            client.post("/v1/datasets", files={"file": ("a", long)}),
            client.post("/v1/datasets?name=a", content=b"x", headers={"content-encoding": "gzip"}),
        ]
        assert [answer.status_code for answer in answers] == [413, 413, 413, 415]
        assert left_over(small) == []
        assert client.get("/v1/datasets").json()["data"] == []


@pytest.fixture(scope="module")
def away(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    """A real server: a client that leaves is only one if there is a connection to cut."""
    its = settings.model_copy(update={"port": 0, "data_dir": tmp_path_factory.mktemp("away")})
    with serving(its) as url:
        yield Away(url, its)


def test_an_upload_cut_off_midway(away: Away) -> None:
    address = urlsplit(away.url)
    head = "POST /v1/datasets?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
    cut = socket.create_connection((str(address.hostname), int(address.port or 0)))
    with cut:
        cut.sendall(head.encode() + b"word\n" * 1000)
        wait_for(lambda: left_over(away.settings))
    wait_for(lambda: not left_over(away.settings))
    named = [each["name"] for each in httpx.get(f"{away.url}/v1/datasets").json()["data"]]
    assert "a" not in named


def test_others_are_answered_while_a_large_text_comes_in(away: Away) -> None:
    size = 4 << 20
    first = "\n".join(WORDS).encode() + b"\n"

    def pieces() -> Iterator[bytes]:
        yield first
        for _ in range(size >> 16):
            yield b"0123456789abcde\n" * (1 << 12)

    with httpx.Client(base_url=away.url, timeout=60) as client, ThreadPoolExecutor(1) as pool:
        coming = pool.submit(client.post, "/v1/datasets?name=large&format=lines", content=pieces())
        asked = 0
        while not coming.done() or not asked:
            assert httpx.get(f"{away.url}/livez").status_code == 200
            asked += 1
        answer = coming.result()
    assert answer.status_code == 201, answer.text
    assert answer.json()["bytes"] == size + len(first)
    assert left_over(away.settings) == []
