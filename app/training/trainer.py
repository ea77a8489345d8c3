"""Train on a prepared text as planned, and build the artifact.

``prepare`` has read the text, ``planning`` has chosen every value. ``Trainer.train`` trains
and yields a ``Progress`` per step; ``Trainer.finish`` measures, calibrates, compares
precisions and writes the card. The command line and the runner of a job both train here; the
catalog publishes the artifact. Knows no SQL and no HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ..charlm.checkpoint import Checkpoint
from ..charlm.corpus.lines import LineCorpus
from ..charlm.corpus.windows import SplitName
from ..charlm.decoder import Decoder, Row
from ..charlm.device import pick_device
from ..charlm.evaluation import evaluate
from ..charlm.network import CharNetwork
from ..charlm.precision import compare_precisions
from ..charlm.sampling import Sampling
from ..charlm.scoring import calibrate
from ..charlm.training import Progress, Training
from ..charlm.vocabulary import BOUNDARY, Ids
from ..errors import InvalidInput
from ..store.artifact import Artifact, Lineage, Measured
from .planning import TrainingPlan
from .prepare import Prepared

_EVALUATION_ROWS: Final = 32
_SAMPLES: Final = 1_000
_SAMPLES_AT_ONCE: Final = 256
_SAMPLE_LENGTH: Final = 50
_SHOWN_LENGTH: Final = 80
_LINES: Final = 8
_TEXT_LENGTH: Final = 200
_WRITTEN_SEED: Final = 1
_LONGEST_SAMPLE: Final = 1_000
_SEARCHED: Final = 20_000_000  # symbols of a text in which samples are searched
_CALIBRATED: Final = 5_000  # records


@dataclass
class Trainer:
    """One training, from its start to its artifact."""

    prepared: Prepared
    plan: TrainingPlan
    device: torch.device = field(default_factory=lambda: pick_device("auto"))
    training: Training | None = None

    def train(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        checkpoint: Checkpoint | None = None,
        base: Artifact | None = None,
    ) -> Iterator[Progress]:
        """Train to the end of the budget, from ``checkpoint`` if given.

        With ``base``, start from its weights; its vocabulary must be a prefix of this one's.
        Raises TrainingFailed, InvalidInput.
        """
        torch.manual_seed(self.plan.training.seed)
        network = CharNetwork(self.plan.network, len(self.prepared.vocabulary))
        if base is not None:
            _start_from(network, base)
        self.training = Training(
            network.to(self.device),
            self.prepared.corpus,
            self.plan.training,
            clock=clock,
            checkpoint=checkpoint,
        )
        yield from self.training.run()

    def sample(self, seed: int) -> str:
        """A sample line, generated with the network's current weights."""
        return self._samples(1, _SHOWN_LENGTH, seed)[0]

    def written(self) -> str:
        """What the network writes now: eight lines, or 200 characters of a text.

        The seed is always the same, so texts of one training differ only by what was learned.
        """
        count, length = (_LINES, _SHOWN_LENGTH) if self._is_lines else (1, _TEXT_LENGTH)
        return "\n".join(self._samples(count, length, _WRITTEN_SEED))

    def _samples(self, count: int, length: int, seed: int) -> list[str]:
        assert self.training is not None
        decoder = Decoder.from_network(self.training.network, "float32")
        samples = _written(decoder, count, length, seed, boundary=self._is_lines)
        return [self.prepared.vocabulary.decode(ids) for ids in samples]

    def finish(self, *, lineage: Lineage | None = None, run_id: str | None = None) -> Artifact:
        """The artifact of the best weights, measured as they are stored.

        The test split is read here and nowhere else.
        """
        training, prepared = self.training, self.prepared
        assert training is not None, "nothing was trained"
        assert training.best is not None, "nothing was validated yet"
        weights = training.best.weights
        network = self._artifact(weights).network()
        comparison = compare_precisions(
            network, prepared.corpus.records("validation"), closed=self._is_lines
        )
        decoder = Decoder.from_network(network, comparison.precision)
        window = training.config.window
        return self._artifact(
            weights,
            serving_precision=comparison.precision,
            calibration=calibrate(decoder, self._held_out_records(), closed=self._is_lines),
            trained_characters=training.trained_characters,
            dataset_sha256=prepared.profile.sha256,
            seed=training.config.seed,
            validation=self._measured(network, "validation", window),
            test=self._measured(network, "test", window),
            verbatim_copy_rate=self._verbatim_copy_rate(decoder),
            run_id=run_id,
            lineage=(lineage or Lineage()).model_copy(
                update={"parameters": _parameters(training, prepared, comparison.int8_loss)}
            ),
        )

    def _artifact(self, weights: Mapping[str, Tensor], **fields: Any) -> Artifact:
        """An artifact of these weights in float16, with other ``fields`` of the card."""
        return Artifact.build(
            (self.plan.network, weights),
            self.prepared.vocabulary,
            self.prepared.corpus.format,
            weight_dtype="float16",
            **fields,
        )

    @property
    def _is_lines(self) -> bool:
        return self.prepared.corpus.format == "lines"

    def _measured(self, network: CharNetwork, split: SplitName, window: int) -> Measured | None:
        network = network.to(self.device)
        windows = self.prepared.corpus.evaluation_windows(split, _EVALUATION_ROWS, max(64, window))
        measures = evaluate(network, windows)
        network.cpu()
        return Measured.of(measures)

    def _held_out_records(self) -> Iterator[Ids]:
        """Records for the calibration, spread over the validation split."""
        corpus = self.prepared.corpus
        count = sum(1 for _ in corpus.records("validation"))
        return islice(corpus.records("validation"), 0, None, max(1, count // _CALIBRATED))

    def _verbatim_copy_rate(self, decoder: Decoder) -> float:
        """The share of samples that occur verbatim in the training text.

        Samples are whole records for lines, 50 characters for a text.
        """
        length = _LONGEST_SAMPLE if self._is_lines else _SAMPLE_LENGTH
        seed = self.plan.training.seed
        samples = _written(decoder, _SAMPLES, length, seed, boundary=self._is_lines)
        corpus = self.prepared.corpus
        if isinstance(corpus, LineCorpus):
            wanted = {tuple(sample) for sample in samples}
            found = {key for r in corpus.records("train") if (key := tuple(r.tolist())) in wanted}
            return sum(tuple(sample) in found for sample in samples) / len(samples)
        text = "".join(map(chr, corpus.beginning("train", _SEARCHED).tolist()))
        return sum("".join(map(chr, sample)) in text for sample in samples) / len(samples)


def _start_from(network: CharNetwork, base: Artifact) -> None:
    """Copy a version's weights; new symbols start with the weights of the unknown symbol."""
    old = base.network().state_dict()
    new = network.state_dict()
    for name, tensor in old.items():
        if name not in new or new[name].shape[1:] != tensor.shape[1:]:
            raise InvalidInput(
                "base_model has a network of another shape; leave the network's settings out.",
                param="base_model",
            )
        if new[name].shape == tensor.shape:
            new[name] = tensor
        else:
            new[name] = torch.cat(
                [tensor, tensor[:1].expand(len(new[name]) - len(tensor), *tensor.shape[1:])]
            )
    network.load_state_dict(new)


def _parameters(training: Training, prepared: Prepared, int8_loss: float | None) -> dict[str, Any]:
    config = training.config
    names = (
        "budget_seconds", "max_epochs", "max_steps", "batch_size", "window", "optimizer",
        "learning_rate", "weight_decay", "schedule", "warmup_steps", "clip_norm", "loss",
    )  # fmt: skip
    return {
        **{name: getattr(config, name) for name in names},
        "plan": " ".join(f"{first}:{steps}" for first, steps in config.plan),
        "steps": training.step,
        "epochs": training.epoch,
        "validation_fraction": prepared.validation_fraction,
        "test_fraction": prepared.test_fraction,
        "int8_loss": int8_loss,
    }


def _written(
    decoder: Decoder, count: int, length: int, seed: int, *, boundary: bool
) -> list[list[int]]:
    """Generate ``count`` samples of up to ``length`` ids, without the boundary."""
    written: list[list[int]] = []
    for first in range(0, count, _SAMPLES_AT_ONCE):
        size = min(_SAMPLES_AT_ONCE, count - first)
        rows = [
            Row(
                slot=row,
                current=BOUNDARY,
                sampling=Sampling(seed=seed),
                counts=np.zeros(0, dtype=np.int32),
                biases=np.zeros(0, dtype=np.float32),
                choice=first + row,
                boundary=boundary,
            )
            for row in range(size)
        ]
        drawn = decoder.write(rows, decoder.initial_state(size), [length] * size).ids_BQ
        written += [[i for i in row if i > BOUNDARY] for row in drawn.tolist()]
    return written
