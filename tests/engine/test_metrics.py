"""What the engine tells Prometheus, read as Prometheus reads it."""

from __future__ import annotations

import numpy as np
import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.charlm.decoder import Decoder
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.engine.engine import Engine
from app.engine.metrics import Metrics
from app.engine.scheduler import Limits
from app.engine.sequence import Request
from tests.engine.test_engine import Loaded, Reader


def figures(registry: CollectorRegistry) -> dict[str, float]:
    """``name{label}`` -> value, without the engine's prefix."""
    return {
        sample.name.removeprefix("charloom_engine_")
        + "".join(f" {value}" for key, value in sample.labels.items() if key != "le"): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_everything_that_happened_is_counted() -> None:
    torch.manual_seed(1)
    network = CharNetwork(NetworkConfig("gru", 1, 8, 4), 7).eval()
    loaded = Loaded("gru", Decoder.from_network(network, "int8"))
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch_models(lambda: loaded.decoder.nbytes)
    engine = Engine(Limits(rows=2), clock=clock, metrics=metrics)
    prompt = np.array([2, 3, 4], dtype=np.int32)
    request = Request((prompt,), max_symbols=50, boundary=False)
    for _ in range(2):
        engine.submit_to(Reader(), request, loaded)
        while engine.tick():
            assert figures(registry)["rows_running"] == 1
    cancel = engine.submit_to(Reader(), request, loaded)
    engine.submit_to(Reader(), request, loaded)
    engine.submit_to(Reader(), request, loaded)
    assert figures(registry)["requests_waiting"] == 3
    cancel()
    while engine.tick():
        pass
    found = figures(registry)
    assert found["rows"] == 2
    assert found["rows_running"] == found["requests_waiting"] == 0
    assert found["sequences_finished_total length"] == 4
    assert found["requests_ended_early_total cancelled"] == 1
    assert found["first_symbol_seconds_count"] == 4
    assert found["gap_seconds_count"] >= 4
    assert found["gap_seconds_sum"] > 0
    assert found["state_cache_queries_total"] == 4
    assert found["state_cache_hits_total"] == 3
    assert found["symbols_total"] >= 200
    assert found["tick_seconds_count"] > 0
    assert found["state_cache_bytes"] == engine.cache.bytes > 0
    assert found["state_bytes"] == engine.state_bytes > 0
    assert found["model_bytes"] == loaded.decoder.nbytes
