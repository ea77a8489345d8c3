"""The models in memory: loaded once, counted while used, dropped when memory is short.

``acquire`` gives a hold on a loaded model. The model stays in memory while it is held, and
afterwards until its memory is needed; the least recently used model is dropped first.
Callers that ask for the same model wait for one load. A held model is never dropped: if
the held models leave no room, ``acquire`` raises Overloaded.

While the source cannot be asked, a name means what it meant before: a loaded model is served
without the database.

Thread-safe: ``_lock`` guards every attribute but the settings; ``_Place.lock`` is held while a
model loads and is never taken under ``_lock``. Knows the registry only as a ``Source``.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

from ..charlm.decoder import Decoder
from ..charlm.network import CharNetwork
from ..charlm.network_config import NetworkConfig
from ..charlm.number_format import Precision
from ..charlm.scoring import Calibration
from ..charlm.vocabulary import Vocabulary
from ..errors import Overloaded, StorageFailed, TooLarge
from ..store.artifact import Artifact
from ..store.card import Card
from .locks import OwnedLock

_NAME_SECONDS: Final = 1.0
"""How long a resolved name is cached: aliases move, other servers publish versions."""

_NAMES_KEPT: Final = 1024

_RETRY_SECONDS: Final = 2.0
"""When to retry after all memory was held by other requests."""


class Version(Protocol):
    """One published file, as the source names it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...


V = TypeVar("V", bound=Version)


class Source(Protocol[V]):
    """Where models come from; both calls may block."""

    def resolve(self, name: str | None, /) -> V:
        """The version that ``name``, ``name@3`` or ``name@alias`` means; None: the only model.

        Raises UnknownModel, InvalidInput; Overloaded or StorageFailed if it cannot be asked.
        """

    def open(self, version: V, /) -> Artifact:
        """The file's content. Raises InvalidArtifact, StorageFailed."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory: key and decoder for the engine, the rest for its texts."""

    key: Hashable
    decoder: Decoder
    vocabulary: Vocabulary
    card: Card
    calibration: Calibration | None

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Loaded:
        """Pack an artifact in the serving precision given by its card."""
        card = artifact.card
        decoder = Decoder.from_network(artifact.network(), card.serving_precision)
        decoder.warm_up()  # here only requests for this model wait
        key = (card.weights_sha256, card.serving_precision)
        return cls(key, decoder, artifact.vocabulary, card, artifact.calibration)


def compile_ahead(precisions: Iterable[Precision]) -> None:
    """Compile inference in these precisions before the first model needs it.

    This takes seconds the first time on a machine; no request should wait for it.
    """
    for precision in precisions:
        network = CharNetwork(NetworkConfig("gru", 1, 16, 16), 4)  # sizes do not matter here
        Decoder.from_network(network, precision).warm_up()


class _Place:
    """A loaded model and the number of its holds; ``lock`` is taken while it loads.

    The resident's lock guards ``users``, and ``loaded`` against being dropped.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loaded: Loaded | None = None
        self.users = 0


class Hold(Generic[V]):
    """Keeps a loaded model in memory until ``release``; also a context manager."""

    def __init__(
        self,
        network: Loaded,
        version: V,
        release: Callable[[], None],
        share: Callable[[], Hold[V]],
    ) -> None:
        self.network = network
        self.version = version
        self._release: Callable[[], None] | None = release
        self._share = share

    @property
    def vocabulary(self) -> Vocabulary:
        return self.network.vocabulary

    @property
    def card(self) -> Card:
        return self.network.card

    @property
    def calibration(self) -> Calibration | None:
        return self.network.calibration

    def share(self) -> Hold[V]:
        """Another hold on the same model; this one must not be released yet."""
        assert self._release is not None, "the hold was released"
        return self._share()

    def release(self) -> None:
        """Release the model; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Resident(Generic[V]):
    """Loaded models within ``limit_bytes``.

    ``on_unload`` gets the key of each dropped model; ``on_full`` is called when one is refused
    because others are held.
    """

    def __init__(
        self,
        source: Source[V],
        *,
        limit_bytes: int = 2 << 30,
        on_unload: Callable[[Hashable], None] = lambda _: None,
        on_full: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._limit = limit_bytes
        self._on_unload = on_unload
        self._on_full = on_full
        self._clock = clock
        self._lock = OwnedLock()
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._names: OrderedDict[str | None, tuple[float, V]] = OrderedDict()
        self._changes = 0  # of what names mean, as far as this process knows
        self.bytes = 0

    def forget_names(self) -> None:
        """Drop all resolved names, because aliases or versions have changed."""
        with self._lock:
            self._names.clear()
            self._changes += 1

    def try_acquire(self, name: str | None, *, stale: bool = False) -> Hold[V] | None:
        """A hold at once; None unless the name was just resolved and its model is loaded.

        With ``stale`` the name may have been resolved any time ago.
        """
        with self._lock:
            known = self._names.get(name)
            if known is None or not (stale or self._clock() - known[0] <= _NAME_SECONDS):
                return None
            place = self._places.get(known[1].sha256)
            if place is None or place.loaded is None:
                return None
            return self._hold(place, known[1])

    def acquire(self, name: str | None) -> Hold[V]:
        """A hold on the version that ``name`` means now; loads it if needed and may wait for disk.

        Raises UnknownModel, InvalidArtifact, StorageFailed; Overloaded if the held models
        leave no room, TooLarge if the model could never fit.
        """
        with self._lock:
            changes = self._changes
        try:
            version = self._source.resolve(name)
        except (Overloaded, StorageFailed):
            known = self.try_acquire(name, stale=True)
            if known is None:
                raise
            return known
        with self._lock:
            if changes == self._changes:  # else the answer may be from before the change
                self._remember(name, version)
            place = self._places.setdefault(version.sha256, _Place())
            place.users += 1  # so that it is not dropped while it loads
        try:
            with place.lock:
                if place.loaded is None:
                    self._load(place, version)
        except BaseException:
            self._leave(version.sha256, place)
            raise
        with self._lock:
            hold = self._hold(place, version)
            place.users -= 1
        return hold

    def _remember(self, name: str | None, version: V) -> None:
        self._lock.check()
        self._names[name] = (self._clock(), version)
        self._names.move_to_end(name)
        while len(self._names) > _NAMES_KEPT:
            self._names.popitem(last=False)

    def _hold(self, place: _Place, version: V) -> Hold[V]:
        self._lock.check()
        assert place.loaded is not None
        place.users += 1
        self._places.move_to_end(version.sha256)

        def release() -> None:
            self._leave(version.sha256, place)

        def share() -> Hold[V]:
            with self._lock:
                return self._hold(place, version)

        return Hold(place.loaded, version, release, share)

    def _leave(self, digest: str, place: _Place) -> None:
        with self._lock:
            place.users -= 1
            if place.loaded is None and not place.users:
                self._places.pop(digest, None)

    def _load(self, place: _Place, version: V) -> None:
        """Load into ``place``; count its bytes first, so that two loads cannot exceed the limit."""
        counted = 0
        try:
            self._make_room(version.size_bytes, counted)
            counted = version.size_bytes
            loaded = Loaded.from_artifact(self._source.open(version))
            self._make_room(loaded.decoder.nbytes, counted)
            counted = loaded.decoder.nbytes
        except BaseException:
            with self._lock:
                self.bytes -= counted
            raise
        with self._lock:
            place.loaded = loaded

    def _make_room(self, needed: int, counted: int) -> None:
        """Drop idle models until a model of ``needed`` bytes fits, and count its bytes.

        ``counted`` of them are counted already. Raises TooLarge, Overloaded.
        """
        if needed > self._limit:
            raise TooLarge(
                f"the model needs {needed >> 20} MiB of memory, but the limit is "
                f"{self._limit >> 20} MiB; raise CHARLOOM_MODEL_MEMORY_MB.",
                code="model_too_large",
            )
        more = needed - counted
        with self._lock:
            dropped = self._drop_idle(self._limit - more)
            fits = self.bytes + more <= self._limit
            if fits:
                self.bytes += more
        for key in dropped:
            self._on_unload(key)
        if not fits:
            self._on_full()
            raise Overloaded(
                "all memory for models is in use by other requests; try again later.",
                retry_after_seconds=_RETRY_SECONDS,
                code="model_memory_full",
            )

    def _drop_idle(self, most_bytes: int) -> list[Hashable]:
        """Drop idle models, least recently used first, until ``most_bytes`` are in use.

        Returns the dropped keys; the caller holds the lock.
        """
        self._lock.check()
        dropped: list[Hashable] = []
        idle = [d for d, place in self._places.items() if place.loaded and not place.users]
        while self.bytes > most_bytes and idle:
            gone = self._places.pop(idle.pop(0)).loaded
            assert gone is not None
            self.bytes -= gone.decoder.nbytes
            dropped.append(gone.key)
        return dropped
