"""Documentation is held against the code: whatever README.md and docs/ name must exist.

Every setting has its row with its true default, every route is mentioned and every
mentioned route exists, every command, make target, option, link and variable in
the text is real, and every curl in it is answered with success.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
from fastapi.testclient import TestClient

from app import validation
from app.cli import app as command_line
from app.main import create_app
from app.settings import Settings
from app.web.http import problems
from app.web.http.strict_json import Most
from app.web.routes import jobs
from app.web.schemas import (
    AliasRequest,
    CompletionRequest,
    LineOfScores,
    RankRequest,
    ScoreRequest,
)
from tests.routes import routes as every_route

ROOT = Path(__file__).parent.parent
HTTP_PAGE = ROOT / "docs" / "http.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
METHODS = "GET|POST|PUT|PATCH|DELETE"
#: Variables with the prefix that are no settings: the tests' own.
NOT_SETTINGS = {"CHARLOOM_TEST_POSTGRES_URL"}
#: What the files are that the commands name.
TEXT = "\n".join(a + b + c for a in "bdklm" for b in "aeiou" for c in "nrst").encode()

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S):
        if language in languages:
            yield block


def code(page: Path) -> str:
    """All code on a page: blocks for a shell, and code within sentences."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return "\n".join([*code_blocks(page, "sh", "console"), *re.findall(r"`([^`]+)`", text)])


# --- Settings ---------------------------------------------------------------------------


def default_of(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return "all processors"
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return "none" if value in (None, "") else f"`{value}`"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row(name: str) -> None:
    description = Settings.model_fields[name].description
    row = f"| `CHARLOOM_{name.upper()}` | {default_of(name)} | {description} |"
    assert row in (ROOT / "docs/settings.md").read_text().splitlines()


@each_page
def test_every_variable_named_is_a_setting(page: Path) -> None:
    settings = {f"CHARLOOM_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\bCHARLOOM_[A-Z_]*[A-Z]\b", page.read_text()))
    assert named - settings - NOT_SETTINGS == set()


def test_compose_sets_only_settings() -> None:
    named = set(re.findall(r"CHARLOOM_[A-Z_]+", (ROOT / "docker-compose.yml").read_text()))
    named |= set(re.findall(r"CHARLOOM_[A-Z_]+", (ROOT / "Dockerfile").read_text()))
    assert named <= {f"CHARLOOM_{name.upper()}" for name in Settings.model_fields}


# --- Routes -----------------------------------------------------------------------------


def shape(path: str) -> str:
    """A route's path without the names of its parameters and without a query."""
    return re.sub(r"\{[^}]*\}", "{}", urlsplit(path).path)


def routes(settings: Settings) -> set[tuple[str, str]]:
    return {(method, shape(path)) for method, path in every_route(create_app(settings))}


def routes_named(page: Path) -> set[tuple[str, str]]:
    pattern = rf"\b({METHODS}) (/[^\s`|]*)"
    return {(method, shape(path)) for method, path in re.findall(pattern, page.read_text())}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("documentation")
    return Settings(models_dir=str(ROOT / "models"), data_dir=folder / "data", training_slots=0)


@each_page
def test_every_route_named_exists(page: Path, settings: Settings) -> None:
    assert routes_named(page) - routes(settings) == set()


def test_every_route_is_named_somewhere(settings: Settings) -> None:
    named = set[tuple[str, str]]().union(*map(routes_named, PAGES))
    assert routes(settings) - named == set()


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("`POST /v1/completions`", CompletionRequest.most),
        ("`POST /v1/score`, `POST /v1/rank`", ScoreRequest.most),
        ("`POST /v1/score`, `POST /v1/rank`", RankRequest.most),
        ("a line of NDJSON", LineOfScores.most),
        ("`POST /v1/jobs`", jobs.MOST),
        ("`PUT /v1/models/{name}/aliases/{alias}`", AliasRequest.most),
    ],
)
def test_every_limit_of_a_body_has_its_row(what: str, most: Most) -> None:
    (row,) = [line for line in HTTP_PAGE.read_text().splitlines() if line.startswith(f"| {what} |")]
    number, unit = re.findall(r"(\d+) (KiB|MiB)", row)[0]
    assert int(number) << {"KiB": 10, "MiB": 20}[unit] == most.bytes
    assert row.endswith(f"| {most.values:,} |")


def test_the_description_says_the_limit_of_each_body(settings: Settings) -> None:
    for path, methods in create_app(settings).openapi()["paths"].items():
        for said in methods.values():
            body = said.get("requestBody", {})
            if "application/json" in body.get("content", {}):
                assert re.match(
                    r"JSON has at most [\d,]+ KiB and [\d,]+ values\.", body["description"]
                ), path


# --- Commands ---------------------------------------------------------------------------


@each_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^(?:\$ )?make ([a-z]+)", code(page), re.M)) - targets == set()


def test_the_makefile_helps_with_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    assert set(re.findall(r"^([a-z]+):.*## \w", text, re.M)) == set(phony.split())


def subcommands() -> dict[str, Any]:
    group: Any = typer.main.get_command(command_line)
    return {name: group.get_command(None, name) for name in group.list_commands(None)}


def options(command: Any) -> set[str]:
    names = {name for parameter in command.params for name in parameter.opts}
    names |= {name for parameter in command.params for name in parameter.secondary_opts}
    return names | {"--help"}


@each_page
def test_every_charloom_command_and_option_exists(page: Path) -> None:
    commands = subcommands()
    wrong = []
    for line in re.findall(r"\bcharloom ([a-z][^|\n]*)", code(page)):
        name, *arguments = line.split()
        if arguments and f"{name} {arguments[0]}" in commands:
            name = f"{name} {arguments.pop(0)}"
        given = {word.split("=")[0] for word in arguments if re.match(r"--?[a-z]", word)}
        known = options(commands[name]) if name in commands else set()
        if name not in commands or given - known:
            wrong.append(line)
    assert wrong == []


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [link.split("#")[0] for link in links if not urlsplit(link).scheme]
    assert [link for link in local if not (page.parent / link).exists()] == []


# --- Errors -----------------------------------------------------------------------------

#: Codes that no answer has: the command line's, and those that a failed job shows.
NOT_ANSWERED = {
    "address_unavailable", "database_foreign", "database_newer", "device_not_found", "exposed",
    "file_exists", "error", "not_found", "forbidden", "lease_lost",
    "dataset_changed", "dataset_file_missing", "invalid_checkpoint", "loss_not_finite",
    "out_of_memory", "runner_lost", "training_failed",
}  # fmt: skip


def test_every_code_of_an_error_is_told() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    raised = set(re.findall(r"""\bcode ?= ?"([a-z_]+)\"""", sources))
    raised |= set(validation._CODES.values()) | {"invalid_type", "invalid_value"}
    raised |= {code for _, code, _ in problems._ROUTER.values()}
    rows = re.findall(r"^\| \d{3} \| (`[a-z_]+`[,:;].*|`[a-z_]+`) \|$", HTTP_PAGE.read_text(), re.M)
    told = set(re.findall(r"`([a-z_]+)`", " ".join(rows))) - {"strict"}
    assert told == raised - NOT_ANSWERED


# --- Metrics ----------------------------------------------------------------------------


def test_every_series_named_is_counted(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        client.get("/livez")
        counted = client.get("/metrics").text
    named = {name for page in PAGES for name in re.findall(r"\bcharloom_[a-z_]+", page.read_text())}
    assert len(named) >= 6
    assert [name for name in named if not re.search(rf"^# TYPE {name} ", counted, re.M)] == []


# --- Requests ---------------------------------------------------------------------------


def curls(page: Path) -> Iterator[list[str]]:
    for block in code_blocks(page, "sh", "console"):
        for command in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(command.removeprefix("$ ").split(" | ")[0], comments=True)
            if words and words[0] == "curl":
                yield words[1:]


CURLS = [(page, words) for page in PAGES for words in curls(page)]


def expanded(client: TestClient, word: str) -> str:
    """The word with its variables filled in, from a dataset and a job made for it."""
    if "$DATASET" in word:
        asked = {"name": "words"}
        answer = client.post("/v1/datasets", params=asked, content=TEXT)
        return word.replace("$DATASET", answer.json()["id"])
    if "$JOB" in word or "$RUN" in word:
        dataset = expanded(client, "$DATASET")
        job = client.post("/v1/jobs", json={"model": "words", "dataset": dataset}).json()
        if word.endswith("/events"):  # or its stream would not end
            client.post(f"/v1/jobs/{job['id']}/cancel")
        return word.replace("$JOB", job["id"]).replace("$RUN", job["run_id"])
    return word


def send(client: TestClient, words: list[str]) -> int:
    """Send what a curl command would and give the status."""
    words = [expanded(client, word) for word in words]
    (url,) = [word for word in words if word.startswith(("http://", "localhost", "127.0.0.1"))]
    pairs = list(itertools.pairwise(words))
    form = [value.split("=", 1) for flag, value in pairs if flag == "-F"]
    if form:
        files = {name: value for name, value in form if value.startswith("@")}
        fields = {name: value for name, value in form if name not in files}
        sent = {name: (path[1:], TEXT) for name, path in files.items()}
        return client.post(urlsplit(url).path, data=fields, files=sent).status_code
    bodies = [value for flag, value in pairs if flag in ("-d", "--data", "--data-binary", "--json")]
    headers = dict(value.split(": ", 1) for flag, value in pairs if flag == "-H")
    methods = [value for flag, value in pairs if flag == "-X"]
    headers.setdefault("content-type", "application/json")
    address = urlsplit(url if "://" in url else f"http://{url}")
    method = methods[0] if methods else "POST" if bodies else "GET"
    path = address.path + (f"?{address.query}" if address.query else "")
    body = bodies[0].encode() if bodies else None
    if body is not None and body.startswith(b"@"):
        body = TEXT
    return client.request(method, path, content=body, headers=headers).status_code


def test_the_first_page_shows_requests() -> None:
    assert {page.name for page, _ in CURLS} >= {"README.md"}


@pytest.mark.parametrize(
    ("page", "words"),
    CURLS,
    ids=[f"{page.name}-{number}" for number, (page, _) in enumerate(CURLS)],
)
def test_every_curl_is_answered(page: Path, words: list[str], settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        assert 200 <= send(client, words) < 300
