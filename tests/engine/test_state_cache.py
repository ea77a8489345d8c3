"""The longest known prefix, exactly; bounded in bytes; nothing of it left behind."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.engine.state_cache import StateCache

STATE = np.arange(6, dtype=np.float32).reshape(2, 3)
SIZE = STATE.nbytes + 512

texts = st.lists(st.integers(2, 4), min_size=1, max_size=12)


def ids(symbols: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array([1, *symbols], dtype=np.int32)


@given(st.lists(st.tuples(texts, st.booleans()), max_size=20), texts)
def test_the_longest_known_prefix_is_found(known: list[tuple[list[int], bool]], text: list[int]
                                           ) -> None:  # fmt: skip
    cache = StateCache(1 << 20)
    mine = []
    for symbols, other in known:
        prefixes = cache.prefixes(ids(symbols))
        cache.put("other" if other else "mine", prefixes, len(prefixes), STATE)
        mine += [] if other else [ids(symbols).tolist()]
    whole = ids(text).tolist()
    best = max((len(each) for each in mine if whole[: len(each)] == each), default=None)
    hit = cache.longest("mine", cache.prefixes(ids(text)))
    assert (None if hit is None else hit.length) == best


def test_the_least_recently_used_go_first_and_are_forgotten_wholly() -> None:
    cache = StateCache(2 * SIZE)
    names = {s: cache.prefixes(ids([s])) for s in (2, 3, 4)}
    for symbol in (2, 3):
        cache.put("a", names[symbol], 2, STATE)
    assert cache.longest("a", names[2]) is not None
    cache.put("a", names[4], 2, STATE)  # 3 goes
    assert cache.longest("a", names[3]) is None
    assert cache.longest("a", names[2]) is not None
    assert cache.bytes == 2 * SIZE
    cache.forget("a")
    assert (cache.bytes, len(cache), int(cache._counts.sum())) == (0, 0, 0)


def test_a_state_that_could_never_fit_or_has_read_nothing_is_not_kept() -> None:
    cache = StateCache(SIZE - 1)
    cache.put("a", cache.prefixes(ids([2])), 2, STATE)
    roomy = StateCache(SIZE)
    roomy.put("a", roomy.prefixes(ids([2])), 0, STATE)
    assert len(cache) == len(roomy) == 0
