"""Turn pieces of ids into the text and logprobs of the completions protocol.

A ``Transcript`` follows one choice: it takes the engine's pieces as they come and
returns what each adds: text, the four parallel arrays, the finish reason. The result
is the same whether pieces are joined or come one at a time. Knows no HTTP.

Symbols that are not text (boundary, unknown) appear by name, in the arrays only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np

from ..charlm.vocabulary import BOUNDARY, RESERVED, Ids, Vocabulary
from ..engine.piece import Piece, Top
from ..rendering.scores import LEAST_LOGPROB

Collect = Callable[[Iterator[Any]], Any]
"""Makes an array of an answer from its entries: ``list``, or something lazy."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as given: its ids, and the text of each.

    ``led`` is true if the given ids began with the boundary. Every text begins with
    it, so it is read only once.
    """

    ids: Ids
    parts: Sequence[str]
    led: bool = False

    @classmethod
    def of_text(cls, text: str, vocabulary: Vocabulary) -> Prompt:
        """Unknown characters are echoed as written."""
        return cls(vocabulary.encode(text), text)

    @classmethod
    def of_ids(cls, ids: Sequence[int], vocabulary: Vocabulary) -> Prompt:
        led = ids[:1] == [BOUNDARY]
        rest = ids[1:] if led else ids
        return cls(np.array(rest, dtype=np.int32), vocabulary.decode_each(rest), led)

    @property
    def symbols(self) -> int:
        return len(self.ids) + self.led


class Transcript:
    """One choice: what it has produced so far."""

    def __init__(
        self, vocabulary: Vocabulary, prompt: Prompt, *, echo: bool, logprobs: int | None
    ) -> None:
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._with_arrays = logprobs is not None
        self._to_echo = echo
        self._offset = 0
        self._read = 0
        self.drawn = 0

    def add(self, piece: Piece, collect: Collect = list) -> dict[str, Any]:
        """What a piece adds: ``text``, ``logprobs``, ``finish_reason``.

        ``collect`` makes each of the four arrays; entries may be taken later.
        """
        start = self._read
        # With arrays, the prompt is echoed as far as it is scored; else at once.
        count = len(piece.read_logprobs) if self._with_arrays else len(self._prompt.ids)
        if not self._to_echo:
            count = 0
        arrays = _Arrays(self._vocabulary, self._prompt, piece, start, count, self._offset,
                         begins=self._to_echo and start == 0)  # fmt: skip
        text = "".join(self._prompt.parts[start : start + count])
        text += self._vocabulary.decode(piece.ids)
        self._offset += len(text)
        self._read += count
        self._to_echo = self._to_echo and self._read < len(self._prompt.ids)
        self.drawn += len(piece.ids)
        return {
            "text": text,
            "logprobs": arrays.fields(collect) if self._with_arrays else None,
            "finish_reason": None if piece.finish is None else piece.finish.value,
        }


@dataclass(frozen=True)
class _Arrays:
    """``tokens``, ``token_logprobs``, ``top_logprobs`` and ``text_offset`` of one piece.

    ``start`` and ``count`` say which symbols of the prompt it echoes, ``offset`` where its
    text begins; ``begins`` is true if the echo begins here. The first entry of an echo is
    null: in the protocol, nothing comes before it.
    """

    vocabulary: Vocabulary
    prompt: Prompt
    piece: Piece
    start: int
    count: int
    offset: int
    begins: bool

    def fields(self, collect: Collect) -> dict[str, Any]:
        return {
            "tokens": collect(map(self.vocabulary.names.__getitem__, self._symbols())),
            "token_logprobs": collect(self._logprobs()),
            "top_logprobs": collect(self._tops()),
            "text_offset": collect(self._offsets()),
        }

    @property
    def _lead(self) -> list[int]:
        return [BOUNDARY] if self.begins and self.prompt.led else []

    def _symbols(self) -> Iterator[int]:
        echoed = self.prompt.ids[self.start : self.start + self.count].tolist()
        return chain(self._lead, echoed, self.piece.ids)

    def _logprobs(self) -> Iterator[float | None]:
        echoed = self.piece.read_logprobs[: self.count]
        if self.begins and (self._lead or self.count):
            yield None
            echoed = echoed if self._lead else echoed[1:]
        for logprob in chain(echoed, self.piece.logprobs):
            yield max(logprob, LEAST_LOGPROB)

    def _tops(self) -> Iterator[dict[str, float] | None]:
        """The symbol itself is always among its alternatives, with the same logprob."""
        names, least = self.vocabulary.names, LEAST_LOGPROB
        lead: list[Top] = [() for _ in self._lead]
        tops = chain(
            lead,
            self.piece.read_tops[: self.count].padded(self.count),
            self.piece.tops.padded(len(self.piece.ids)),
        )
        for symbol, logprob, top in zip(self._symbols(), self._logprobs(), tops, strict=True):
            if logprob is None:
                yield None
                continue
            named = {names[each]: value if value > least else least for each, value in top}
            named[names[symbol]] = logprob
            yield named

    def _offsets(self) -> Iterator[int]:
        echoed = (len(self.prompt.parts[self.start + place]) for place in range(self.count))
        lengths = chain((0 for _ in self._lead), echoed, (i >= RESERVED for i in self.piece.ids))
        # One more than there are entries: where the next piece begins.
        places = accumulate(lengths, initial=self.offset)
        for place, _ in zip(places, self._symbols(), strict=False):
            yield int(place)
