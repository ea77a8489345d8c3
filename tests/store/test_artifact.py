"""Model files: written, read, the same bytes each time; what an artifact is built from."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch

from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.scoring import Calibration
from app.charlm.vocabulary import Vocabulary
from app.errors import InvalidArtifact, InvalidInput, TooLarge
from app.store.artifact import Artifact, Lineage, Measured, chunks, read, write
from app.store.card import WeightDtype
from tests.models import tiny_artifact
from tests.store.forging import TRUE_FILE, framed, taken_apart

WEIGHT_DTYPES: list[WeightDtype] = ["float32", "float16", "bfloat16"]
CONFIGS = [
    NetworkConfig(cell="rnn", hidden_size=5, embedding_size=3, activation="relu"),
    NetworkConfig(cell="gru", layers=2, hidden_size=4, embedding_size=3, dropout=0.25),
    NetworkConfig(cell="lstm", layers=3, hidden_size=4, embedding_size=4, tied=True),
    NetworkConfig(cell="lstm", layers=15, hidden_size=1, embedding_size=1),
]
MEASURED = Measured(
    nats=1.5, bits_per_character=2.25, perplexity=4.75, accuracy=0.5, characters=1000
)


def same(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts have the same card and, to the bit, the same weights."""
    return (
        one.card.to_json() == other.card.to_json()
        and list(one.weights) == list(other.weights)
        and all(
            one.weights[name].dtype == weight.dtype and torch.equal(one.weights[name], weight)
            for name, weight in other.weights.items()
        )
    )


def test_a_network_is_made_without_torchs_compiler(tmp_path: Path) -> None:
    """Importing that takes a second, which the first request to a server would wait."""
    file = tmp_path / "1.safetensors"
    file.write_bytes(b"".join(chunks(tiny_artifact())))
    program = (
        "import sys; from app.store.artifact import read; "
        f"read(open({str(file)!r}, 'rb')).network(); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.cell}-{config.layers}")
@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
def test_what_is_written_is_read(weight_dtype: WeightDtype, config: NetworkConfig) -> None:
    artifact = tiny_artifact(
        weight_dtype=weight_dtype,
        config=config,
        characters="\x00\n ab汉😀\U0010ffff",
        trained_characters=10**12,
        dataset_sha256="a" * 64,
        validation=MEASURED,
        test=None,
        run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
        serving_precision="int8",
        verbatim_copy_rate=0.125,
        lineage=Lineage(corpus="汉 poems", parameters={"window": 64, "clip": 0.5, "tied": None}),
    )
    file = write(artifact)
    again = read(file)
    assert same(again, artifact)
    assert write(again) == file
    assert b"".join(chunks(artifact)) == file
    assert again.vocabulary == artifact.vocabulary
    assert again.calibration == Calibration((0.5, 1.0, 2.5))
    assert again.card.size_bytes == len(file)
    assert list(again.weights) == list(config.weight_shapes(artifact.card.symbols))
    assert {weight.dtype for weight in again.weights.values()} == {getattr(torch, weight_dtype)}
    assert len(file) % 4 == 0


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("config", CONFIGS[:3], ids=lambda config: config.cell)
def test_the_network_computes_with_the_weights_that_were_stored(
    weight_dtype: WeightDtype, config: NetworkConfig
) -> None:
    artifact = read(write(tiny_artifact(weight_dtype=weight_dtype, config=config)))
    network = artifact.network()
    assert not network.training
    for name, weight in network.state_dict().items():
        stored = artifact.weights.get(name, artifact.weights["embedding.weight"])
        assert weight.dtype is torch.float32
        assert torch.equal(weight, stored.float())
    chars_BT = torch.tensor([[1, 2, 3], [0, 4, 2]])
    logits_BTV, state_BLS = network(chars_BT, network.initial_state(2))
    assert logits_BTV.shape == (2, 3, 5)
    assert bool(torch.isfinite(state_BLS).all())
    if weight_dtype == "float32":
        original = tiny_artifact(config=config).network()
        assert torch.equal(original(chars_BT, original.initial_state(2))[0], logits_BTV)
    assert (network.output.weight is network.embedding.weight) == config.tied
    with torch.no_grad():  # a network of one's own: the artifact stays as it was read
        network.embedding.weight.zero_()
    assert bool(artifact.weights["embedding.weight"].any())


def test_the_same_artifact_gives_the_same_bytes() -> None:
    assert write(tiny_artifact()) == write(tiny_artifact()) == TRUE_FILE
    assert write(tiny_artifact(seed=2)) != TRUE_FILE


def test_other_readers_of_safetensors_read_it() -> None:
    from safetensors.torch import load

    artifact = tiny_artifact(weight_dtype="float16")
    loaded = load(write(artifact))
    assert loaded.keys() == artifact.weights.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in artifact.weights.items())


def test_a_stream_is_read_from_where_it_stands(tmp_path: Path) -> None:
    assert same(read(BytesIO(TRUE_FILE)), tiny_artifact())
    later = BytesIO(b"prefix" + TRUE_FILE)
    later.seek(6)
    assert same(read(later), tiny_artifact())
    path = tmp_path / "one.safetensors"
    path.write_bytes(TRUE_FILE)
    with path.open("rb") as stream:
        assert same(read(stream), tiny_artifact())


def test_a_stream_that_ends_early_is_refused() -> None:
    class Shrinking(BytesIO):
        """A file that somebody cuts off while it is read."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > len(TRUE_FILE) - 200:
                return b""
            return super().read(min(100, size) if size and size > 100 and self.tell() > 8 else size)

    with pytest.raises(InvalidArtifact):
        read(Shrinking(TRUE_FILE))

    class Emptied(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size) if self.tell() < len(TRUE_FILE) - len(body) else b""

    body = taken_apart()[2]
    with pytest.raises(InvalidArtifact, match="ends before its last tensor"):
        read(Emptied(TRUE_FILE))


def test_the_first_files_without_a_digest_of_the_card_are_read() -> None:
    header, _, body = taken_apart()
    del header["__metadata__"]["charloom_sha256"]
    assert same(read(framed(header, body)), tiny_artifact())


def test_the_shipped_models_are_read() -> None:
    shipped = sorted((Path(__file__).parents[2] / "models").glob("*/*.safetensors"))
    assert shipped
    for path in shipped:
        with path.open("rb") as stream:
            assert read(stream).card.symbols > 2


def test_weights_beyond_their_dtype_are_refused_when_built() -> None:
    network = CharNetwork(NetworkConfig(cell="gru", hidden_size=4, embedding_size=3), 5)
    with torch.no_grad():
        network.output.bias[0] = 70_000.0  # float16 ends at 65,504
    vocabulary = Vocabulary("abc")
    Artifact.build(network, vocabulary, "text", weight_dtype="bfloat16")
    with pytest.raises(InvalidInput, match="keep the model in float32") as caught:
        Artifact.build(network, vocabulary, "text", weight_dtype="float16")
    assert caught.value.param == "precision"
    with torch.no_grad():
        network.output.bias[0] = float("nan")
    with pytest.raises(InvalidInput):
        Artifact.build(network, vocabulary, "text")


def test_an_artifact_does_not_change_with_the_network_it_was_built_from() -> None:
    network = CharNetwork(NetworkConfig(cell="gru", hidden_size=4, embedding_size=3), 5)
    artifact = Artifact.build(network, Vocabulary("abc"), "text", created_at=1)
    before = write(artifact)
    with torch.no_grad():
        network.output.bias.add_(1.0)
    assert write(artifact) == before
    assert read(before).card.created_at == 1


def test_weights_that_do_not_lie_in_a_row_are_stored_as_if_they_did() -> None:
    artifact = tiny_artifact()
    weights = {name: w.t().contiguous().t() for name, w in artifact.weights.items()}
    again = Artifact.build(
        (artifact.card.network, weights),
        artifact.vocabulary,
        "lines",
        calibration=artifact.calibration,
        created_at=artifact.card.created_at,
        seed=1,
    )
    assert write(again) == TRUE_FILE


def test_a_vocabulary_that_does_not_fit_the_header_says_what_to_do() -> None:
    characters = "".join(map(chr, range(0x10000, 0x10000 + 90_000)))
    artifact = tiny_artifact(
        characters=characters, config=NetworkConfig(cell="rnn", hidden_size=1, embedding_size=1)
    )
    with pytest.raises(TooLarge, match="remove rare characters"):
        write(artifact)
