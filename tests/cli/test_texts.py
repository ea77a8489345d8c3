"""generate, score and models: the same from the local store and from a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import CharloomError, InvalidInput, NotFound, UnknownModel
from app.settings import Settings
from tests.cli.conftest import Command
from tests.serving import serving


@pytest.fixture
def url(with_models: Path, here: Path) -> Iterator[str]:
    """A real server over the same models."""
    settings = Settings(
        models_dir=str(with_models), data_dir=here / "server", port=0, training_slots=0
    )
    with serving(settings) as url:
        yield url


def test_generate_from_store_and_server_is_the_same(
    charloom: Command, with_models: Path, url: str
) -> None:
    asked = ("generate", "words", "--prompt", "ab", "--count", "3", "--seed", "5")
    local = charloom(*asked)
    assert local.exit_code == 0, local.output
    lines = local.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("ab") for line in lines)
    assert charloom(*asked, "--url", url).stdout == local.stdout
    assert charloom(*asked[:-1], "6").stdout != local.stdout


def test_score_from_store_and_server_is_the_same(
    charloom: Command, with_models: Path, here: Path, url: str
) -> None:
    (here / "lines.txt").write_bytes(b"\xef\xbb\xbfabc\r\nd\n\nXb")
    local = charloom("score", "words", "lines.txt", "--json")
    rows = [json.loads(line) for line in local.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["abc", "d", "", "Xb"]
    assert rows[3]["unknown_characters"] == "X"
    remote = charloom("score", "words", "lines.txt", "--json", "--url", url)
    for mine, its in zip(rows, map(json.loads, remote.stdout.splitlines()), strict=False):
        assert its["nats"] == mine["nats"]
        assert its.get("percentile") == mine.get("percentile")


def test_score_reads_standard_input_and_shows_a_table(charloom: Command, with_models: Path) -> None:
    result = charloom("score", "words", input="abc\nj\n")
    first, second = result.stdout.splitlines()
    percentile, bits, text = first.split()
    assert 0 <= float(percentile) <= 100
    assert float(bits) > 0
    assert text == "abc"
    assert second.endswith("j")
    assert "percentile" in result.stderr


def test_per_character_off_a_terminal_is_json(charloom: Command, with_models: Path) -> None:
    row = json.loads(charloom("score", "words", "--per-character", input="ab\n").stdout)
    assert [each["character"] for each in row["per_character"]] == ["a", "b", None]


def test_a_line_that_is_not_utf_8_is_named(charloom: Command, with_models: Path) -> None:
    with pytest.raises(InvalidInput, match="line 2: byte 1 is not UTF-8"):
        charloom("score", "words", input=b"ok\na\xff\n")
    with pytest.raises(NotFound, match=r"no file gone\.txt"):
        charloom("score", "words", "gone.txt")


def test_models_are_listed(charloom: Command, with_models: Path, url: str) -> None:
    table = charloom("models").stdout
    assert "words@1" in table
    assert "lstm 1 × 16" in table
    listed = json.loads(charloom("models", "--json").stdout)
    remote = json.loads(charloom("models", "--json", "--url", url).stdout)
    assert [each["id"] for each in listed] == [each["id"] for each in remote] == ["prose", "words"]


def test_an_empty_store_says_what_to_do(charloom: Command) -> None:
    assert "charloom train" in charloom("models").stderr
    with pytest.raises(UnknownModel, match="none yet"):
        charloom("generate", "names")


def test_a_server_that_is_not_there(charloom: Command) -> None:
    with pytest.raises(InvalidInput, match="No server answers at"):
        charloom("generate", "words", "--url", "http://127.0.0.1:9")


def test_a_servers_error_is_told(charloom: Command, url: str) -> None:
    with pytest.raises(CharloomError, match="There is no model 'nobody'"):
        charloom("generate", "nobody", "--url", url)
    with pytest.raises(CharloomError, match="There is no model 'nobody'"):
        charloom("score", "nobody", "--url", url, input="a\n")


def test_doctor_prints_every_setting(
    charloom: Command, with_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = charloom("doctor")
    assert result.exit_code == 0, result.output
    for name in Settings.model_fields:
        assert f"CHARLOOM_{name.upper()}" in result.stdout
    monkeypatch.setenv("CHARLOOM_API_KEY", "sesame")
    assert "sesame" not in charloom("doctor").stdout


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sesame@127.0.0.1:1/charloom",
        "postgresql://me:ses@me/sesame@127.0.0.1:1/charloom",
        "postgresql://127.0.0.1:1/charloom?user=me&password=sesame",
    ],
)
def test_doctor_tells_no_password(
    charloom: Command, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CHARLOOM_DATABASE_URL", url)
    shown = charloom("doctor").stdout
    assert "127.0.0.1:1/charloom" in shown
    assert "sesame" not in shown


def test_doctor_finds_what_is_wrong(charloom: Command, with_models: Path) -> None:
    path = with_models / "words" / "1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = charloom("doctor")
    assert result.exit_code == 1
    assert "WRONG models" in result.stdout
    assert "words/1.safetensors" in result.stdout


def test_doctor_names_every_file_that_is_wrong(charloom: Command, with_models: Path) -> None:
    whole = (with_models / "words/1.safetensors").read_bytes()
    (with_models / "many").mkdir()
    for number in range(1, 16):
        (with_models / f"many/{number}.safetensors").write_bytes(whole)
    assert charloom("doctor").exit_code == 0
    for number in range(1, 16):
        garbled = whole[:-1] + bytes([whole[-1] ^ number])  # of the same size
        (with_models / f"many/{number}.safetensors").write_bytes(garbled)
    (with_models / "prose/1.safetensors").unlink()
    for number in range(20, 25):
        (with_models / f"many/{number}.safetensors").write_bytes(b"no model")
    result = charloom("doctor")
    assert result.exit_code == 1
    shown = [line for line in result.stdout.splitlines() if ".safetensors: " in line]
    assert len(shown) == 20
    assert sum("is not the one that was published" in line for line in shown) == 15
    assert "21 files of " in result.stdout
    assert "and 1 more" in result.stdout


def test_doctor_says_that_the_store_is_away(charloom: Command, with_models: Path) -> None:
    assert charloom("doctor").exit_code == 0
    with_models.rename(with_models.with_name("elsewhere"))
    result = charloom("doctor")
    assert result.exit_code == 1
    assert "none of the model files that the database knows" in result.stdout
    table = charloom("models")
    assert table.stdout.count("missing") == 2
    with_models.with_name("elsewhere").rename(with_models)
    assert "missing" not in charloom("models").stdout
