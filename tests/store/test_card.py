"""Cards: what they show, what they leave out, and that a card once written is read for ever."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
from pydantic import ValidationError

from app.charlm.measures import Measures
from app.charlm.network_config import NetworkConfig
from app.charlm.vocabulary import Vocabulary
from app.store.card import Card, Lineage, Measured, library_versions, network_fields
from tests.models import tiny_artifact

# A card of the first version, as it lies in files: what reads it must go on reading it.
FIRST = (
    '{"format_version":1,"cell":"lstm","layers":1,"hidden_size":2,"embedding_size":2,'
    '"dropout":0.5,"activation":"tanh","tied":true,"parameters":60,"symbols":4,'
    '"vocabulary":"a\\u6c49","corpus_format":"lines","precision":"float16",'
    '"weights_sha256":"' + "0" * 64 + '","serving_precision":"int8","verbatim_copy_rate":0.25,'
    '"calibration":[0.5,1.0],"trained_characters":1000,"dataset_sha256":"' + "1" * 64 + '",'
    '"seed":7,"validation":{"nats":1.0,"bits_per_character":1.5,"perplexity":2.5,'
    '"accuracy":0.5,"characters":100},"run_id":"01ARZ3NDEKTSV4RRFFQ69G5FAV",'
    '"created_at":1700000000,"libraries":{"torch":"2.13.0"},"lineage":{"corpus":"made up",'
    '"parameters":{"window":64,"loss":"cross_entropy","clip":0.5,"tied":true}}}'
)


def test_a_card_of_the_first_version_is_read_and_written_alike() -> None:
    card = Card.model_validate_json(FIRST)
    assert card.to_json() == FIRST
    assert card.network == NetworkConfig("lstm", 1, 2, 2, dropout=0.5, tied=True)
    assert card.lineage.parameters == {
        "window": 64,
        "loss": "cross_entropy",
        "clip": 0.5,
        "tied": True,
    }
    assert type(card.lineage.parameters["tied"]) is bool
    assert type(card.lineage.parameters["window"]) is int


def test_a_card_is_written_in_ascii_and_without_its_files_own_facts() -> None:
    card = tiny_artifact(characters="汉😀").card
    text = card.to_json()
    assert text.isascii()
    assert {"size_bytes", "sha256"}.isdisjoint(json.loads(text))
    assert card.model_copy(update={"size_bytes": 5, "sha256": "a" * 64}).to_json() == text


def test_a_summary_leaves_the_long_fields_out() -> None:
    summary = tiny_artifact().card.summary()
    assert {"vocabulary", "calibration"}.isdisjoint(summary)
    assert summary["symbols"] == 5
    json.dumps(summary, allow_nan=False)
    assert "abc" not in repr(tiny_artifact().card)


def test_a_card_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        tiny_artifact().card.seed = 2  # type: ignore[misc]


def test_measures_become_part_of_a_card() -> None:
    assert Measured.of(None) is None
    measured = Measured.of(Measures(100.0, 50, 100))
    assert measured is not None
    assert measured.characters == 100
    assert measured.accuracy == 0.5


def test_the_networks_fields_are_those_of_its_configuration() -> None:
    config = NetworkConfig("gru", 2, 8, 4)
    fields = network_fields(config, Vocabulary("ab"))
    assert fields["parameters"] == config.parameters(4)
    assert fields["vocabulary"] == "ab"


def test_the_libraries_are_named_with_their_versions() -> None:
    assert library_versions()["torch"] == metadata.version("torch")


@pytest.mark.parametrize("line", ["a\nb", "a\0", "\x1b[0m", "\x85", "a" * 1001])
def test_a_line_for_people_is_one_line(line: str) -> None:
    for fields in ({"corpus": line}, {"parameters": {line: 1}}, {"parameters": {"a": line}}):
        with pytest.raises(ValidationError):
            Lineage.model_validate(fields)
