"""Models are loaded once, kept while used, and dropped by bytes, never a busy one."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass

import pytest
import torch

from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.vocabulary import Vocabulary
from app.engine.resident import Resident
from app.errors import InvalidArtifact, Overloaded, TooLarge, UnknownModel
from app.store.artifact import Artifact


@dataclass(frozen=True)
class Published:
    name: str
    version: int
    sha256: str
    size_bytes: int = 1000


class Shelf:
    """A source of three small models, by the names a, b and c."""

    def __init__(self) -> None:
        self.versions = {name: Published(name, 1, name * 64) for name in "abc"}
        self.opened: list[str] = []
        self.resolved = 0
        self.failure: Exception | None = None
        self.may_open = threading.Event()
        self.may_open.set()

    def resolve(self, name: str | None, /) -> Published:
        self.resolved += 1
        if self.failure is not None:
            raise self.failure
        name = name or "a"
        if name not in self.versions:
            raise UnknownModel(f"no model {name}")
        return self.versions[name]

    def open(self, version: Published, /) -> Artifact:
        self.may_open.wait(30)
        self.opened.append(version.name)
        torch.manual_seed(ord(version.name))
        network = CharNetwork(NetworkConfig("gru", 1, 16, 4), 5)
        return Artifact.build(network, Vocabulary("xyz"), "lines")


def size_of_one() -> int:
    with Resident(Shelf()).acquire("a") as lease:
        return lease.network.decoder.nbytes


def test_a_model_is_loaded_once_however_many_ask() -> None:
    shelf = Shelf()
    shelf.may_open.clear()
    resident = Resident(shelf)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(resident.acquire, "a") for _ in range(8)]
        shelf.may_open.set()
        leases = [future.result() for future in waiting]
    assert shelf.opened == ["a"]
    assert len({id(lease.network) for lease in leases}) == 1
    assert leases[0].vocabulary == Vocabulary("xyz")
    assert leases[0].card.cell == "gru"
    assert leases[0].calibration is None


def digests(resident: Resident[Published]) -> list[str]:
    """The files that are loaded, least recently used first."""
    return [digest for digest, place in resident._places.items() if place.loaded]


def test_the_least_recently_used_idle_model_makes_room() -> None:
    shelf, unloaded = Shelf(), list[Hashable]()
    resident = Resident(shelf, limit_bytes=2 * size_of_one(), on_unload=unloaded.append)
    first = resident.acquire("a")
    resident.acquire("b").release()
    resident.acquire("c").release()  # b goes: a is in use
    assert digests(resident) == ["a" * 64, "c" * 64]
    assert len(unloaded) == 1
    first.release()
    first.release()  # once more does nothing
    resident.acquire("b").release()  # now a, unused for longest, goes
    assert digests(resident) == ["c" * 64, "b" * 64]
    assert resident.bytes == 2 * size_of_one()
    assert shelf.opened == ["a", "b", "c", "b"]


def test_when_all_is_in_use_the_answer_is_overloaded() -> None:
    refused: list[bool] = []
    resident = Resident(Shelf(), limit_bytes=size_of_one(), on_full=lambda: refused.append(True))
    with resident.acquire("a"), pytest.raises(Overloaded):
        resident.acquire("b")
    assert refused == [True]
    resident.acquire("b").release()
    assert digests(resident) == ["b" * 64]


def test_what_can_never_fit_says_which_setting_to_raise() -> None:
    resident = Resident(Shelf(), limit_bytes=999)
    with pytest.raises(TooLarge, match="CHARLOOM_MODEL_MEMORY_MB"):
        resident.acquire("a")
    assert digests(resident) == []


def test_a_name_just_asked_for_is_had_without_waiting() -> None:
    now = [0.0]
    shelf = Shelf()
    resident = Resident(shelf, clock=lambda: now[0])
    assert resident.try_acquire("a") is None
    resident.acquire("a").release()
    with resident.acquire("a") as held:
        quick = resident.try_acquire("a")
        assert quick is not None
        assert quick.network is held.network
        assert quick.version.version == 1
        quick.release()
    assert shelf.resolved == 2
    now[0] = 5.0  # the alias may have moved meanwhile
    assert resident.try_acquire("a") is None
    resident.acquire("a").release()
    resident.forget_names()
    assert resident.try_acquire("a") is None


def test_a_name_whose_model_was_dropped_must_be_loaded() -> None:
    resident = Resident(Shelf(), limit_bytes=size_of_one(), clock=lambda: 0.0)
    resident.acquire("a").release()
    resident.acquire("b").release()
    assert resident.try_acquire("a") is None


def test_a_failed_loading_leaves_nothing_behind() -> None:
    resident = Resident(Shelf())
    with pytest.raises(UnknownModel):
        resident.acquire("zebra")
    assert digests(resident) == []


def test_names_are_kept_within_bounds() -> None:
    shelf = Shelf()
    shelf.versions |= {f"a@{i}": shelf.versions["a"] for i in range(1100)}
    resident = Resident(shelf, clock=lambda: 0.0)
    for i in range(1100):
        resident.acquire(f"a@{i}").release()
    assert resident.try_acquire("a@0") is None
    assert resident.try_acquire("a@1099") is not None


def test_models_that_load_at_the_same_time_count_together() -> None:
    """Each alone would fit; without counting them while they load, both would be let in."""
    shelf = Shelf()
    size = size_of_one()
    shelf.versions = {n: Published(n, 1, n * 64, size) for n in "ab"}
    shelf.may_open.clear()
    resident = Resident(shelf, limit_bytes=int(1.5 * size))
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(resident.acquire, name) for name in "ab"]
        wait(futures, timeout=30, return_when=FIRST_COMPLETED)
        shelf.may_open.set()
        errors = [future.exception() for future in futures]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "Overloaded"]
    assert resident.bytes == size


def test_a_file_that_cannot_be_read_is_not_counted() -> None:
    shelf = Shelf()

    def broken(version: Published, /) -> Artifact:
        raise InvalidArtifact("damaged")

    shelf.open = broken  # type: ignore[method-assign]
    resident = Resident(shelf)
    with pytest.raises(InvalidArtifact):
        resident.acquire("a")
    assert resident.bytes == 0
