"""Places to store files: a folder, and a bucket behind S3's interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server, for the whole session."""
    with s3.server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket that the clients of this process can reach."""
    for name, value in {**s3.ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    return s3.new_bucket(s3_server)


@pytest.fixture(params=["folder", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each test twice: an empty folder and an empty place in a bucket."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"{request.getfixturevalue('bucket_url')}/some/prefix"
