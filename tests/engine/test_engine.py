"""The engine gives what the plain loop gives, bit for bit, whatever else is going on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

from app.charlm.cells import Cell
from app.charlm.decoder import Decoder
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.number_format import Precision
from app.charlm.sampling import Sampling
from app.charlm.scoring import score
from app.charlm.vocabulary import BOUNDARY
from app.engine.engine import Engine
from app.engine.piece import FinishReason, Piece, floats, ints
from app.engine.scheduler import Limits
from app.engine.sequence import Request, StopRule
from app.engine.stream import MOST_UNREAD, Abandoned, AsyncStream, BlockingStream, Bridge
from app.errors import InvalidInput, Overloaded, TooLarge
from tests.charlm.reference import generate

SYMBOLS = 7


@dataclass(frozen=True, eq=False)
class Loaded:
    key: str
    decoder: Decoder


def loaded(cell: Cell, precision: Precision, layers: int = 2, size: int = 9) -> Loaded:
    torch.manual_seed(layers)
    network = CharNetwork(NetworkConfig(cell, layers, size, 5), SYMBOLS).eval()
    return Loaded(f"{cell}-{precision}", Decoder.from_network(network, precision))


NETWORKS = [loaded("lstm", "int8"), loaded("gru", "float32", 1, 20), loaded("rnn", "int8", 3, 33)]


@dataclass
class Reader:
    """Collects what the engine pushes."""

    whole: dict[int, Piece] = field(default_factory=dict)
    error: Exception | None = None
    pushes: int = 0
    full: bool = False

    def push(self, piece: Piece) -> None:
        self.pushes += 1
        assert self.error is None
        if piece.index in self.whole:
            assert self.whole[piece.index].finish is None, "a piece after the last"
            self.whole[piece.index].join(piece)
        else:
            self.whole[piece.index] = piece

    def fail(self, error: Exception) -> None:
        assert self.error is None
        self.error = error


def ids(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, dtype=np.int32)


def plain(request: Request, network: Loaded, index: int) -> Piece:
    """What a sequence must give, by the plain loop and one symbol at a time."""
    prompt = request.prompts[index // request.choices]
    wanted = Piece(index, finish=FinishReason.LENGTH)
    if request.scored:
        whole = score(network.decoder, [prompt], closed=request.closed)[0]
        wanted.read_logprobs = floats(whole.logprobs.tolist())
        wanted.read_ranks = ints(whole.ranks.tolist())
    drawn = generate(
        network.decoder,
        prompt,
        request.sampling,
        max_symbols=request.max_symbols,
        boundary=request.boundary,
        choice=index,
    )
    for symbol, logprob in drawn:
        wanted.ids.append(symbol)
        wanted.logprobs.append(logprob)
        if symbol == BOUNDARY:
            wanted.finish = FinishReason.STOP
            break
        ended = [
            stop for stop in STOPS.get(request.stop, []) if list(wanted.ids[-len(stop) :]) == stop
        ]
        if ended:
            wanted.finish = FinishReason.STOP
            longest = max(map(len, ended))
            del wanted.ids[-longest:], wanted.logprobs[-longest:]
            break
    return wanted


STOPS: dict[StopRule, list[list[int]]] = {}


def stop_rule(stops: list[list[int]]) -> StopRule:
    rule = StopRule(stops)
    STOPS[rule] = stops
    return rule


symbol_lists = st.lists(st.integers(0, SYMBOLS - 1), max_size=12)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([0, 3]),
    min_p=st.sampled_from([0.0, 0.2]),
    frequency_penalty=st.sampled_from([0.0, 1.0]),
    logit_bias=st.sampled_from([(), ((3, 2.0),)]),
    seed=st.integers(0, 5),
)


@st.composite
def requests(draw: Callable[..., Any]) -> Request:
    closed = draw(st.sampled_from([False, False, True]))
    prompts = draw(st.lists(symbol_lists, min_size=1, max_size=3))
    if draw(st.booleans()):
        prompts.append(prompts[0] * 40)  # long enough for several strides and chunks
    written = [] if closed else draw(st.lists(st.lists(st.integers(2, 6), min_size=1, max_size=3)))
    return Request(
        prompts=tuple(ids(*prompt) for prompt in prompts),
        sampling=draw(samplings),
        max_symbols=0 if closed else draw(st.integers(0, 20)),
        choices=draw(st.integers(1, 3)),
        boundary=draw(st.booleans()),
        stop=stop_rule(written),
        scored=closed or draw(st.booleans()),
        closed=closed,
    )


def same(got: Piece, wanted: Piece) -> None:
    assert got.ids == wanted.ids
    assert got.logprobs == wanted.logprobs
    assert got.read_logprobs == wanted.read_logprobs
    assert got.read_ranks == wanted.read_ranks
    assert got.finish == wanted.finish


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(requests(), st.sampled_from(NETWORKS), st.integers(0, 5), st.integers(0, 9)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 3000, 20_000, 1 << 20]),
    st.integers(1, 6),
    st.lists(st.floats(0, 0.02), min_size=1, max_size=5),
)
def test_the_same_text_whoever_else_is_served(
    arrivals: list[tuple[Request, Loaded, int, int]],
    cache_bytes: int,
    rows: int,
    delays: list[float],
) -> None:
    # The clock jumps at random, so that chunks and quanta come in random sizes.
    clock = Clock(delays)
    engine = Engine(Limits(rows=rows), cache_bytes=cache_bytes, clock=clock, threads=2)
    readers = []
    for request, network, ticks_before, cancel_after in arrivals:
        for _ in range(ticks_before):
            engine.tick()
        reader = Reader()
        cancel = engine.submit_to(reader, request, network)
        readers.append((reader, request, network))
        if cancel_after == 9:
            engine.tick()
            cancel()
            engine.tick()
    while engine.tick():
        assert engine.running <= rows
        assert engine.cache.bytes <= cache_bytes
    assert engine.running == engine.waiting == 0
    for reader, request, network in readers:
        if reader.error is not None:
            assert isinstance(reader.error, Abandoned)
            continue
        assert sorted(reader.whole) == list(range(request.sequences))
        for index, piece in reader.whole.items():
            same(piece, plain(request, network, index))


class Clock:
    """Every look at it moves it on, by amounts that come round."""

    def __init__(self, steps: list[float]) -> None:
        self._steps = steps
        self._looks = 0
        self._now = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            self._looks += 1
            self._now += self._steps[self._looks % len(self._steps)]
            return self._now


def serve(engine: Engine, request: Request, network: Loaded = NETWORKS[0]) -> Reader:
    reader = Reader()
    engine.submit_to(reader, request, network)
    while engine.tick():
        pass
    return reader


def test_a_prompt_that_grows_by_one_character_costs_one_step() -> None:
    engine = Engine()
    text = ids(*([2, 3, 4, 5, 6] * 100))
    first = serve(engine, Request((text[:400],), max_symbols=1))
    assert first.whole[0].cached == 0
    for length in range(401, 406):
        grown = serve(engine, Request((text[:length],), max_symbols=1))
        # The boundary and length − 1 characters come from the cache: one is read.
        assert grown.whole[0].cached == length - 1
    again = serve(engine, Request((text[:300],), max_symbols=1))
    assert again.whole[0].cached == 255  # the stride


def test_a_completion_can_be_continued_from_its_end() -> None:
    engine = Engine()
    first = serve(engine, Request((ids(2, 3),), max_symbols=30, boundary=False)).whole[0]
    more = np.append(ids(2, 3), first.ids).astype(np.int32)
    assert serve(engine, Request((more,), max_symbols=1)).whole[0].cached == 31


def test_choices_and_equal_prompts_read_the_prompt_once() -> None:
    long = ids(*([3, 4] * 500))
    network = loaded("lstm", "int8")
    read: list[int] = []
    whole_read = network.decoder.read

    def counted(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(sum(map(len, sequences)))
        return whole_read(sequences, *args, **kwargs)

    network.decoder.read = counted  # type: ignore[method-assign]
    engine = Engine(cache_bytes=0)
    request = Request((long, long, ids(2)), choices=4, max_symbols=5)
    reader = serve(engine, request, network)
    assert sum(read) == 1000 + 1
    network.decoder.read = whole_read  # type: ignore[method-assign]
    for index, piece in reader.whole.items():
        same(piece, plain(request, network, index))


def test_top_alternatives_belong_to_their_places() -> None:
    engine = Engine()
    request = Request(
        (ids(2, 3, 4),), Sampling(temperature=0), max_symbols=6, scored=True, top=3, boundary=False
    )
    piece = serve(engine, request).whole[0]
    assert [len(tops) for tops in piece.tops] == [3] * len(piece.ids)
    assert [len(tops) for tops in piece.read_tops] == [3] * 3
    for tops, logprob, rank in zip(
        piece.read_tops, piece.read_logprobs, piece.read_ranks, strict=True
    ):
        assert [value for _, value in tops] == sorted((v for _, v in tops), reverse=True)
        if rank <= 3:
            assert tops[rank - 1][1] == logprob
    for tops, symbol, logprob in zip(piece.tops, piece.ids, piece.logprobs, strict=True):
        assert (symbol, logprob) in tops


def test_a_full_waiting_room_refuses_at_the_door() -> None:
    engine = Engine(Limits(rows=1, waiting_requests=2, waiting_symbols=10_000))
    request = Request((ids(2),), max_symbols=50)
    for _ in range(2):
        engine.submit_to(Reader(), request, NETWORKS[0])
    with pytest.raises(Overloaded) as refused:
        engine.submit_to(Reader(), request, NETWORKS[0])
    assert refused.value.retry_after_seconds > 0
    with pytest.raises(TooLarge):
        engine.submit_to(Reader(), Request((ids(2),), max_symbols=10_000), NETWORKS[0])
    while engine.tick():
        pass
    engine.submit_to(Reader(), request, NETWORKS[0])


def test_a_cancelled_row_is_free_at_the_next_tick() -> None:
    engine = Engine(Limits(rows=1))
    slow, quick = Reader(), Reader()
    cancel = engine.submit_to(
        slow, Request((ids(2),), max_symbols=90_000, boundary=False), NETWORKS[0]
    )
    engine.submit_to(quick, Request((ids(3),), max_symbols=1, boundary=False), NETWORKS[0])
    engine.tick()
    assert not quick.whole
    cancel()
    engine.tick()
    assert isinstance(slow.error, Abandoned)
    assert quick.whole[0].finish is FinishReason.LENGTH


def test_a_late_request_ends_and_says_why() -> None:
    now = [0.0]
    engine = Engine(clock=lambda: now[0])
    reader = Reader()
    request = Request((ids(2),), max_symbols=90_000, timeout_seconds=3, boundary=False)
    engine.submit_to(reader, request, NETWORKS[0])
    assert engine.tick()
    now[0] = 3.0
    assert not engine.tick()
    assert isinstance(reader.error, Overloaded)
    assert reader.error.code == "deadline_exceeded"


def test_a_bias_on_a_symbol_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Engine().submit_to(
            Reader(), Request((ids(2),), Sampling(logit_bias=((99, 1.0),))), NETWORKS[0]
        )


def test_a_failing_network_ends_its_own_requests_only(caplog: pytest.LogCaptureFixture) -> None:
    broken = loaded("lstm", "int8")
    broken = Loaded("broken", broken.decoder)
    broken.decoder.write = lambda *_, **__: 1 / 0  # type: ignore[method-assign,assignment]
    engine = Engine()
    first, second = Reader(), Reader()
    engine.submit_to(first, Request((ids(2),), max_symbols=3), broken)
    engine.submit_to(second, Request((ids(2),), max_symbols=3), NETWORKS[0])
    while engine.tick():
        pass
    assert isinstance(first.error, ZeroDivisionError)
    assert second.whole[0].finish is not None
    assert "broken" in caplog.text


def test_streams_on_an_event_loop() -> None:
    engine = Engine()
    engine.start()
    request = Request((ids(2, 3),), max_symbols=300, choices=3, boundary=False)

    async def many() -> None:
        streams = [engine.submit(request, network) for network in NETWORKS]
        for stream, network in zip(streams, NETWORKS, strict=True):
            for piece in await stream.collect():
                same(piece, plain(request, network, piece.index))
        # A reader that leaves cancels.
        endless = engine.submit(Request((ids(2),), max_symbols=90_000, boundary=False), NETWORKS[0])
        async for pieces in endless.pieces(gap_seconds=0.001):
            assert pieces[0].ids
            break
        await endless_is_gone(engine)

    async def endless_is_gone(engine: Engine) -> None:
        while engine.busy:
            await asyncio.sleep(0.001)

    asyncio.run(many())
    engine.close()


def test_a_slow_reader_gets_bigger_pieces() -> None:
    engine = Engine()

    async def read_late() -> list[list[Piece]]:
        stream = engine.submit(Request((ids(2),), max_symbols=200, boundary=False), NETWORKS[0])
        while engine.tick():
            pass
        return [pieces async for pieces in stream.pieces()]

    got = asyncio.run(read_late())
    assert len(got) == 1
    assert len(got[0]) == 1
    assert len(got[0][0].ids) == 200


def test_closing_drains_and_then_refuses() -> None:
    engine = Engine()
    engine.start()
    quick = engine.submit_blocking(Request((ids(2),), max_symbols=5), NETWORKS[0])
    engine.close(drain_seconds=30)
    assert quick.collect()[0].finish is not None
    with pytest.raises(Overloaded) as refused:
        engine.submit_blocking(Request((ids(2),)), NETWORKS[0])
    assert refused.value.code == "draining"


def test_closing_without_patience_ends_what_runs() -> None:
    engine = Engine()
    engine.start()
    endless = Request((ids(2),), max_symbols=10_000_000, boundary=False)
    stream = engine.submit_blocking(endless, NETWORKS[0])
    engine.close()
    with pytest.raises(Overloaded):
        stream.collect()


def test_a_forgotten_network_leaves_nothing_behind() -> None:
    engine = Engine()
    serve(engine, Request((ids(2, 3, 4),), max_symbols=3))
    assert engine.cache.bytes
    assert engine.state_bytes
    engine.forget(NETWORKS[0].key)
    engine.tick()
    assert engine.cache.bytes == 0
    assert engine.state_bytes == 0


def test_a_failed_tick_ends_what_was_open_and_the_engine_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    longest, calls = engine.cache.longest, [0]

    def fails_once(*args: Any) -> Any:
        calls[0] += 1
        return 1 / 0 if calls[0] == 1 else longest(*args)

    engine.cache.longest = fails_once  # type: ignore[method-assign,assignment]
    engine.start()
    with pytest.raises(ZeroDivisionError):
        engine.submit_blocking(Request((ids(2),), max_symbols=3), NETWORKS[0]).collect()
    assert engine.submit_blocking(Request((ids(2),), max_symbols=3), NETWORKS[0]).collect()
    assert "a tick failed" in caplog.text
    engine.close()


def test_a_failed_tick_leaks_no_row_and_tells_a_reader_on_a_loop() -> None:
    engine = Engine(Limits(rows=1, waiting_requests=0))
    longest = engine.cache.longest

    def fails(*args: Any) -> Any:
        raise ZeroDivisionError

    async def ask() -> list[Piece]:
        stream = engine.submit(Request((ids(2),), max_symbols=3), NETWORKS[0])
        return await asyncio.wait_for(stream.collect(), 10)

    engine.start()
    for _ in range(3):
        engine.cache.longest = fails  # type: ignore[method-assign,assignment]
        with pytest.raises(ZeroDivisionError):
            asyncio.run(ask())
        engine.cache.longest = longest  # type: ignore[method-assign]
        assert asyncio.run(ask())[0].finish is not None
    assert engine.running == 0
    engine.close()


def test_a_small_request_to_an_idle_engine_is_served_where_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No thread is woken, and the text is what the plain loop gives."""
    monkeypatch.setattr("app.engine.engine._FIRST_TICK_SECONDS", 60.0)  # also on a busy machine
    engine = Engine()
    engine.start()
    time.sleep(0.05)  # the engine's thread sleeps
    told: list[str] = []
    engine._wake.notify_all = lambda: told.append("woken")  # type: ignore[method-assign]
    request = Request((ids(2, 3),), max_symbols=4)

    async def ask() -> list[Piece] | None:
        return engine.submit(request, NETWORKS[0]).collected()

    pieces = asyncio.run(ask())
    assert pieces is not None
    assert not told
    assert pieces[0].ids == plain(request, NETWORKS[0], 0).ids
    del engine._wake.notify_all
    engine.close()


def test_what_the_first_tick_does_not_finish_the_engines_thread_does() -> None:
    engine = Engine()
    engine.start()
    request = Request((ids(2, 3),), max_symbols=5000, boundary=False)

    async def ask() -> tuple[list[Piece] | None, list[Piece]]:
        stream = engine.submit(request, NETWORKS[2])
        return stream.collected(), await stream.collect()

    early, pieces = asyncio.run(ask())
    assert early is None
    assert pieces[0].ids == plain(request, NETWORKS[2], 0).ids
    engine.close()


def test_an_error_is_told_to_who_collects_at_once() -> None:
    async def read() -> None:
        stream = AsyncStream(1, Bridge(asyncio.get_running_loop()))
        assert stream.collected() is None
        stream.push(Piece(0, ids=ints([2]), logprobs=floats([-1.0])))
        stream.fail(Overloaded("too late"))
        with pytest.raises(Overloaded):
            stream.collected()

    asyncio.run(read())


def test_a_network_unloaded_while_its_last_row_ends_goes_at_the_next_tick() -> None:
    engine = Engine()
    request = Request((ids(2),), max_symbols=90_000, boundary=False)
    cancel = engine.submit_to(Reader(), request, NETWORKS[0])
    engine.tick()
    engine.forget(NETWORKS[0].key)
    engine.tick()
    assert engine.state_bytes
    cancel()
    engine.tick()
    assert engine.state_bytes == 0


def test_an_error_that_comes_with_the_last_pieces_is_still_told() -> None:
    stream = BlockingStream(1)
    stream.push(Piece(0, ids=ints([2]), logprobs=floats([-1.0])))
    stream.fail(Overloaded("too late"))
    pieces = stream.pieces()
    assert [list(piece.ids) for piece in next(pieces)] == [[2]]
    with pytest.raises(Overloaded):
        next(pieces)


def test_an_error_that_comes_with_the_last_pieces_is_still_told_on_a_loop() -> None:
    async def read() -> None:
        stream = AsyncStream(1, bridge := Bridge(asyncio.get_running_loop()))
        stream.push(Piece(0, ids=ints([2]), logprobs=floats([-1.0])))
        stream.fail(Overloaded("too late"))
        bridge.flush()
        async with contextlib.aclosing(stream.pieces(0.01)) as pieces:
            assert [list(piece.ids) for piece in await anext(pieces)] == [[2]]
            with pytest.raises(Overloaded):
                await asyncio.wait_for(anext(pieces), 5)

    asyncio.run(read())


def test_a_request_pauses_while_its_reader_is_behind_and_changes_nothing_else() -> None:
    engine, behind, other = Engine(Limits(rows=4)), Reader(full=True), Reader()
    request = Request((ids(2, 3),), max_symbols=300, boundary=False, choices=2)
    engine.submit_to(behind, request, NETWORKS[0])
    engine.submit_to(other, request, NETWORKS[0])
    while other.whole.get(1, Piece(1)).finish is None or other.whole[0].finish is None:
        assert engine.tick()
    assert not behind.whole, "it made pieces that nobody reads"
    behind.full = False
    while engine.tick():
        pass
    for index in (0, 1):
        same(behind.whole[index], other.whole[index])


def test_a_paused_request_is_ended_when_others_wait_for_its_rows() -> None:
    now = [0.0]
    engine = Engine(Limits(rows=1), clock=lambda: now[0])
    behind, other = Reader(full=True), Reader()
    request = Request((ids(2, 3),), max_symbols=5, boundary=False)
    engine.submit_to(behind, request, NETWORKS[0])
    for _ in range(100):  # alone it may pause for as long as it likes
        now[0] += 1.0
        assert engine.tick()
    engine.submit_to(other, request, NETWORKS[0])
    while engine.tick():
        now[0] += 1.0
    assert isinstance(behind.error, Overloaded)
    assert behind.error.code == "reader_too_slow"
    assert other.whole[0].finish is FinishReason.LENGTH


def test_a_paused_request_is_ended_when_its_memory_is_wanted() -> None:
    now = [0.0]
    engine = Engine(Limits(rows=4), clock=lambda: now[0])
    behind = Reader(full=True)
    engine.submit_to(behind, Request((ids(2, 3),), max_symbols=5, boundary=False), NETWORKS[0])
    assert engine.tick()
    now[0] = 8.0
    engine.press()  # it has paused for 8 s only, and nobody presses again
    for moment in (9.0, 11.0, 60.0):
        now[0] = moment
        assert engine.tick()
    engine.press()
    assert not engine.tick()
    assert isinstance(behind.error, Overloaded)
    assert behind.error.code == "reader_too_slow"


def test_what_waits_for_a_reader_is_bounded_and_the_engine_sleeps_meanwhile() -> None:
    async def run() -> None:
        engine = Engine(Limits(rows=8))
        engine.start()
        request = Request((ids(2),), max_symbols=100_000, boundary=False, choices=4, top=5)
        stream = engine.submit(request, NETWORKS[1])
        while not stream.full:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        kept = stream._pending._numbers
        assert kept < 3 * MOST_UNREAD  # one tick may pass the mark
        busy = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - busy < 0.25
        assert stream._pending._numbers == kept
        drawn = 0
        async with contextlib.aclosing(stream.pieces()) as news:
            async for pieces in news:
                drawn += sum(len(piece.ids) for piece in pieces)
                if drawn > 20_000:
                    break
        assert drawn > 20_000, "it did not go on when the reader did"
        await asyncio.to_thread(engine.close)

    asyncio.run(run())


def test_who_collects_everything_is_never_behind() -> None:
    async def run() -> int:
        engine = Engine(Limits(rows=8))
        engine.start()
        request = Request((ids(2),), max_symbols=MOST_UNREAD, boundary=False, choices=2)
        pieces = await engine.submit(request, NETWORKS[1]).collect()
        await asyncio.to_thread(engine.close)
        return sum(len(piece.ids) for piece in pieces)

    assert asyncio.run(run()) == 2 * MOST_UNREAD


def test_callers_and_ticks_share_nothing_without_its_lock() -> None:
    """Many threads at once, switched after every few instructions."""
    engine = Engine(Limits(rows=3, waiting_requests=6), cache_bytes=1 << 20)
    engine.start()
    failures: list[BaseException] = []
    until = time.monotonic() + 3.0

    def guarded(work: Callable[[int], None]) -> Callable[[], None]:
        def run() -> None:
            count = 0
            try:
                while time.monotonic() < until:
                    count += 1
                    work(count)
            except BaseException as error:  # noqa: BLE001 (raised below, in the test)
                failures.append(error)

        return run

    def ask(count: int) -> None:
        network = NETWORKS[count % 3]
        request = Request((ids(2, 3, 4),), max_symbols=5, choices=1 + count % 3)
        with contextlib.suppress(Overloaded, TooLarge):
            engine.check(10)
            stream = engine.submit_blocking(request, network)
            if count % 4 == 0:
                stream.cancel()
            with contextlib.suppress(Abandoned):
                stream.collect()

    def look(count: int) -> None:
        generate_latest(engine.metrics.registry)
        assert engine.running <= 3
        assert engine.waiting >= 0

    def forget(count: int) -> None:
        engine.forget(NETWORKS[count % 3].key)
        time.sleep(0.001)

    def on_a_loop(count: int) -> None:
        """A new loop each time: bridges come and go."""

        async def one() -> None:
            with contextlib.suppress(Overloaded):
                await engine.submit(Request((ids(5),), max_symbols=3), NETWORKS[0]).collect()

        asyncio.run(one())

    work = [ask, ask, ask, look, forget, on_a_loop, on_a_loop]
    threads = [threading.Thread(target=guarded(each)) for each in work]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads)
    engine.close()
    assert not failures, failures
    assert (engine.running, engine.waiting, engine.busy) == (0, 0, False)
