"""``charloom jobs`` and ``train --detach``: the same over the local database and over a server."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from typer.testing import Result

from app.cli import remote
from app.errors import CharloomError, Conflict, InvalidCorpus, InvalidInput, NotFound
from app.settings import Settings
from app.store.artifact import chunks
from app.wiring.full import FullInstallation
from tests.cli.conftest import Command
from tests.jobs.making import WORDS
from tests.models import tiny_artifact
from tests.processes import ending
from tests.serving import CHARLOOM, serving

QUICK = ("--budget", "1s", "--cell", "gru", "--layers", "1", "--hidden-size", "8")


@pytest.fixture
def words(here: Path) -> Path:
    path = here / "words.txt"
    path.write_text("\n".join(WORDS))
    return path


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has no slot for training."""
    folder = tmp_path_factory.mktemp("server")
    settings = Settings(
        port=0, training_slots=0, data_dir=folder / "data", models_dir=str(folder / "models")
    )
    with serving(settings) as url:
        yield url


@pytest.fixture(params=["local", "server"])
def where(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options that say where the jobs are; every test leaves none behind."""
    return () if request.param == "local" else ("--url", request.getfixturevalue("url"))


def detached(charloom: Command, where: tuple[str, ...], *options: str) -> Result:
    asked = ("--name", "mine", "--detach", *QUICK, *options, *where)
    return charloom("train", "words.txt", *asked)


def test_submitted_listed_shown_steered_deleted(
    charloom: Command, words: Path, where: tuple[str, ...]
) -> None:
    result = detached(charloom, where, "--corpus", "made up", "--seed", "7")
    assert result.exit_code == 0, result.output
    job = result.stdout.strip()
    assert job.startswith("job_")
    assert f"charloom jobs watch {job}" in result.stderr
    assert "few" in result.stderr  # what the dataset warns of
    told = json.loads(charloom("jobs", "show", job, *where).stdout)
    assert told["spec"]["network"]["hidden_size"] == 8
    assert told["spec"]["training"]["budget_seconds"] == 1
    assert told["spec"]["training"]["seed"] == 7
    assert told["spec"]["tags"] == {"corpus": "made up"}
    for asked in (("jobs",), ("jobs", "list", "--state", "queued")):
        row = charloom(*asked, *where).stdout.splitlines()[1].split()
        assert row[:3] == [job, "mine", "queued"]
    assert json.loads(charloom("jobs", "list", "--json", *where).stdout) == [told]
    with pytest.raises(CharloomError) as refused:
        charloom("jobs", "delete", job, *where)
    assert refused.value.code == "job_state"
    for verb, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert charloom("jobs", verb, job, *where).stdout == f"{job} is {state}\n"
    watched = charloom("jobs", "watch", *where)
    assert watched.exit_code == 1
    assert "waits for a free slot" in watched.stderr
    assert "deleted" in charloom("jobs", "delete", job, *where).stdout
    assert "no such jobs" in charloom("jobs", *where).stderr


def test_a_text_is_read_in_the_format_of_the_base(
    charloom: Command, words: Path, where: tuple[str, ...]
) -> None:
    """As when it is trained here: otherwise the same command would train another model."""
    paragraphs = (" ".join(WORDS[first::6]) for first in range(6))
    words.write_text("\n\n".join(paragraphs))  # by itself it is read as text
    if where:
        with httpx.Client(base_url=where[1]) as client:
            with suppress(CharloomError):
                remote.ask(client, "DELETE", "/v1/models/lined")
            body = b"".join(chunks(tiny_artifact()))
            remote.ask(client, "POST", "/v1/models", params={"name": "lined"}, content=body)
    else:
        with FullInstallation(Settings()) as installation:
            installation.registry.publish("lined", tiny_artifact())
    job = charloom(
        "train", "words.txt", "--name", "m", "--detach", "--base-model", "lined", *where
    ).stdout.strip()
    told = json.loads(charloom("jobs", "show", job, *where).stdout)
    if where:
        with httpx.Client(base_url=where[1]) as client:
            dataset = remote.ask(client, "GET", f"/v1/datasets/{told['spec']['dataset']}")
            assert dataset["format"] == "lines"
    else:
        with FullInstallation(Settings()) as installation:
            ((only,), _) = installation.datasets.list()
            assert only.format == "lines"
    charloom("jobs", "cancel", job, *where)
    charloom("jobs", "delete", job, *where)


def test_what_is_not_there(charloom: Command, words: Path, where: tuple[str, ...]) -> None:
    for asked in (("show", "job_" + "0" * 26), ("cancel", "nothing"), ("watch", "../x")):
        with pytest.raises(CharloomError) as missing:
            charloom("jobs", *asked, *where)
        assert missing.value.code == "job_not_found"
    with pytest.raises(CharloomError) as missing:
        charloom("jobs", "watch", *where)
    assert missing.value.code == "job_not_found"
    with pytest.raises(NotFound, match=r"no file gone\.txt"):
        charloom("train", "gone.txt", "--name", "mine", "--detach", *where)


def test_what_cannot_be_trained(charloom: Command, words: Path, where: tuple[str, ...]) -> None:
    with pytest.raises(CharloomError) as refused:
        detached(charloom, where, "--base-model", "nobody")
    assert refused.value.param == "base_model"
    words.write_bytes(b"abc\xff")
    with pytest.raises(CharloomError) as refused:
        detached(charloom, where)
    assert refused.value.code == InvalidCorpus.code or refused.value.code == "invalid_utf8"
    with pytest.raises(CharloomError) as refused:
        charloom("jobs", "list", "--state", "asleep", *where)
    assert refused.value.param == "state"


def test_options_that_do_not_go_together(charloom: Command, words: Path) -> None:
    for asked in (("train", "words.txt", "--name", "a", "--url", "http://localhost:1"),
                  ("train", "words.txt", "--name", "a", "--detach", "--device", "cpu"),
                  ("jobs", "--url", "http://localhost:1", "list")):  # fmt: skip
        assert charloom(*asked).exit_code == 2


def test_watching_can_be_stopped_without_the_job(charloom: Command, words: Path) -> None:
    job = detached(charloom, ()).stdout.strip()
    command = [*CHARLOOM, "jobs", "watch", job]
    with ending(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as watching:
        assert watching.stderr is not None
        assert "waits for a free slot" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        assert "The job continues" in watching.stderr.read()
        assert watching.wait() == 130
    assert json.loads(charloom("jobs", "show", job).stdout)["state"] == "queued"


def test_no_server(charloom: Command, words: Path) -> None:
    with pytest.raises(InvalidInput, match="No server answers"):
        charloom("jobs", "--url", "http://127.0.0.1:9")


def test_a_server_trains_what_was_left_to_it(charloom: Command, words: Path, here: Path) -> None:
    """Put into the local database, trained by the server that shares it."""
    job = detached(charloom, ()).stdout.strip()
    with serving(Settings(port=0, training_slots=1, threads=1)) as url:
        watched = charloom("jobs", "watch", job, "--url", url)
        assert watched.exit_code == 0, watched.output
        assert watched.stdout == "published mine@1\n"
        assert "mine@1" in charloom("jobs", "--url", url).stdout
        row = charloom("jobs").stdout.splitlines()[1].split()
        assert row[:4] == [job, "mine@1", "succeeded", "100%"]
        assert len(charloom("generate", "mine", "-n", "2", "--url", url).stdout.splitlines()) == 2
    with pytest.raises(Conflict):
        charloom("jobs", "cancel", job)
