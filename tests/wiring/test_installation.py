"""Composition: each part once and only when wanted, by URL, with the shipped models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from app.database.job_tables import JobRow
from app.errors import StorageFailed
from app.jobs.executors.local import LocalExecutor
from app.jobs.spec import JobSpec
from app.jobs.states import JobState
from app.runner import Attempt
from app.settings import Settings
from app.wiring.full import FullInstallation, runner_environment
from app.wiring.installation import Installation
from tests import s3
from tests.jobs.making import NETWORK, TRAINING, WORDS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_part_is_built_when_it_is_wanted_and_once(here: Path) -> None:
    with FullInstallation(Settings(models_dir="own")) as installation:
        assert list(here.iterdir()) == []
        assert installation.jobs is installation.jobs
        assert installation.registry is installation.registry
        assert not (here / "own").exists()
        assert "engine" not in installation.__dict__
        assert "dispatcher" not in installation.__dict__
        jobs = installation.jobs
        assert installation.dispatcher is installation.dispatcher
        assert jobs is installation.jobs


def test_the_shipped_models_come_into_a_new_place(here: Path) -> None:
    with Installation(Settings()) as installation:
        assert installation.registry.synchronise().added == ["names@1", "shakespeare@1"]
    shutil.rmtree(here / "models" / "names")
    with Installation(Settings()) as installation:
        installation.registry.synchronise()
        assert not (here / "models" / "names").exists()


def test_a_models_folder_that_is_away_is_not_filled_again(here: Path) -> None:
    """A mount that comes late: two of ours in its place would hide what was there."""
    with Installation(Settings()) as installation:
        installation.registry.synchronise()
    (here / "models").rename(here / "elsewhere")
    with Installation(Settings()) as installation:
        assert [each.name for each in installation.registry.list()] == ["names", "shakespeare"]
    assert not (here / "models").exists()


@pytest.mark.parametrize(
    "chosen", [Settings(models_dir="models"), Settings(store_url="file:///tmp/none")]
)
def test_a_place_that_was_chosen_is_left_as_it_is(here: Path, chosen: Settings) -> None:
    with Installation(chosen) as installation:
        assert installation.registry.list() == []
    assert not (here / "models").exists()


def test_a_place_that_cannot_be_written_says_so(here: Path) -> None:
    (here / "data").write_text("in the way")
    with Installation(Settings()) as installation, pytest.raises(StorageFailed):
        _ = installation.registry


def test_the_settings_choose_the_executor(here: Path) -> None:
    with FullInstallation(Settings(executor="local")) as installation:
        assert isinstance(installation.dispatcher._executor, LocalExecutor)


def test_a_runner_is_told_where_everything_is() -> None:
    settings = Settings(store_url="s3://bucket/charloom/", database_url="sqlite:////a/b")
    told = runner_environment(settings)
    assert told["CHARLOOM_STORE_URL"] == "s3://bucket/charloom/"
    assert told["CHARLOOM_MODELS_DIR"] == settings.models_url == "s3://bucket/charloom/models"
    assert settings.datasets_url == "s3://bucket/charloom/datasets"
    assert settings.checkpoints_url == "s3://bucket/charloom/checkpoints"
    assert told["CHARLOOM_DATABASE_URL"] == "sqlite:////a/b"
    near = runner_environment(Settings())
    assert near["CHARLOOM_MODELS_DIR"] == str(Path("models").absolute())
    assert near["CHARLOOM_DATABASE_URL"] == f"sqlite:///{Path('data/charloom.sqlite3').absolute()}"
    assert near["CHARLOOM_DATA_DIR"] == str(Path("data").absolute())
    apart = Settings(store_url="s3://bucket", models_dir="models")
    assert apart.models_url == "models"
    alone = Settings(data_dir=Path("d"))
    assert (alone.datasets_url, alone.checkpoints_url) == ("d/datasets", "d/checkpoints")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket of a server that speaks S3."""
    import s3fs

    with s3.server() as endpoint:
        for name, value in {**s3.ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield s3.new_bucket(endpoint)
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_job_whose_text_checkpoints_and_model_lie_in_an_object_store(
    here: Path, bucket: str
) -> None:
    """From upload to published version, and resumed in the middle from the stored checkpoint."""
    words = here / "words.txt"
    words.write_text("\n".join(WORDS))
    with FullInstallation(Settings(store_url=bucket, threads=1)) as installation:
        dataset = installation.datasets.add(words, "words", "lines")
        document = {"model": "words", "dataset": dataset.id, "network": NETWORK}
        job = installation.jobs.submit(JobSpec.parse({**document, "training": TRAINING}))
        for ended_early in (True, False):
            with installation.database.session() as session:
                session.execute(update(JobRow).values(not_before=0))
            claim = installation.jobs._queue.claim("test", "local")
            assert claim is not None
            attempt = Attempt(installation, claim, on_lost=lambda: None)
            if ended_early:
                attempt.terminate()
            attempt.run()
        done = installation.jobs.get(job.id)
        assert (done.state, done.model_version) == (JobState.SUCCEEDED, "words@1")
        types = [event.type for event in installation.jobs.events(job.id)]
        assert "resumed" in types
        assert set(installation.models.sizes()) == {"words/1.safetensors"}
        assert len(installation.checkpoints.sizes()) >= 2
        installation.registry.open(installation.registry.resolve("words"))
        installation.jobs.delete(job.id)
        assert installation.checkpoints.sizes() == {}
        installation.datasets.delete(dataset.id)
    assert sorted(path.name for path in (here / "data").iterdir() if path.is_dir()) == ["uploads"]
