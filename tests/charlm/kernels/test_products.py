"""Products: right, exact in int8, and the same bits whatever the number of rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.charlm.kernels import products as kernels
from app.charlm.kernels.amx import CONFIGURATION
from app.charlm.kernels.products import pack, padded, product_float32, product_int8, room_for
from app.charlm.kernels.vectors import compiled


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 16), (128, 48), (320, 272)])
def test_int8_products_are_exact_for_every_number_of_rows(outputs: int, inputs: int) -> None:
    random = np.random.default_rng(outputs)
    weights = random.normal(size=(outputs, inputs)).astype(np.float32)
    biases = random.normal(size=outputs).astype(np.float32)
    packed = pack(weights, biases, integers=True)
    scales = np.abs(weights).max(axis=1) / 127.0
    whole = np.rint(weights / scales[:, None]).astype(np.int64)
    x = random.integers(1, 256, size=(15, inputs)).astype(np.uint8)
    np.testing.assert_allclose(packed.scales_N, scales / 127.0, rtol=1e-6)
    sums = (x.astype(np.int64) - 128) @ whole.T
    expected = sums.astype(np.float32) * packed.scales_N + biases
    for rows in range(1, 16):
        y = np.full((15, outputs), np.nan, dtype=np.float32)
        product_int8(x, packed.panels, packed.scales_N, packed.offsets_N, packed.biases_N, y, rows)
        assert np.array_equal(y[:rows], expected[:rows])
        assert np.isnan(y[rows:]).all()


def test_the_largest_sums_do_not_overflow() -> None:
    weights = np.full((64, 4096), -1.0, dtype=np.float32)
    packed = pack(weights, np.zeros(64, dtype=np.float32), integers=True)
    for byte, value in ((255, 1.0), (1, -1.0)):
        x = np.full((1, 4096), byte, dtype=np.uint8)
        y = np.zeros((1, 64), dtype=np.float32)
        product_int8(x, packed.panels, packed.scales_N, packed.offsets_N, packed.biases_N, y, 1)
        np.testing.assert_allclose(y, -4096 * value, rtol=1e-6)


@compiled
def chosen(x: Any, panels: Any, scales: Any, offsets: Any, biases: Any, y: Any, rows: int,
           configuration: Any) -> None:  # fmt: skip
    kernels.product(x, panels, scales, offsets, biases, y, rows, configuration)


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (192, 80), (128, 256)])
@pytest.mark.parametrize("configuration", [CONFIGURATION, CONFIGURATION[:0]])
def test_tiles_change_no_bit(outputs: int, inputs: int, configuration: Any) -> None:
    random = np.random.default_rng(outputs)
    weights = random.normal(size=(outputs, inputs)).astype(np.float32)
    packed = pack(weights, weights[:, 0], integers=True)
    matrix = (packed.panels, packed.scales_N, packed.offsets_N, packed.biases_N)
    for rows in (1, 4, 5, 16, 17, 31, 32, 33, 48, 49, 70):
        x = random.integers(1, 256, size=(room_for(rows), inputs)).astype(np.uint8)
        wanted, got = (np.full((len(x), outputs), np.nan, dtype=np.float32) for _ in range(2))
        product_int8(x, *matrix, wanted, rows)
        chosen(x, *matrix, got, rows, configuration)
        assert np.array_equal(got[:rows], wanted[:rows])


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 16), (192, 80)])
def test_float32_products_have_the_same_bits_for_every_number_of_rows(
    outputs: int, inputs: int
) -> None:
    random = np.random.default_rng(inputs)
    weights = random.normal(size=(outputs, inputs)).astype(np.float32)
    biases = random.normal(size=outputs).astype(np.float32)
    packed = pack(weights, biases, integers=False)
    x = random.normal(size=(15, inputs)).astype(np.float32)
    results = []
    for rows in range(1, 16):
        y = np.zeros((15, outputs), dtype=np.float32)
        product_float32(
            x, packed.panels, packed.scales_N, packed.offsets_N, packed.biases_N, y, rows
        )
        results.append(y)
    for rows, y in enumerate(results, start=1):
        assert np.array_equal(y[:rows], results[-1][:rows])
    exact = x.astype(np.float64) @ weights.T.astype(np.float64) + biases
    np.testing.assert_allclose(results[-1], exact, rtol=0, atol=2e-5)


def test_a_packed_matrix_knows_its_size() -> None:
    zeros = np.zeros((64, 16), dtype=np.float32)
    assert pack(zeros, zeros[:, 0], integers=True).nbytes == 64 * 16 + 3 * 4 * 64
    assert pack(zeros, zeros[:, 0], integers=False).nbytes == 4 * (64 * 16 + 64)


def test_the_python_faces_of_compiled_functions_do_nothing() -> None:
    y = np.zeros((1, 64), dtype=np.float32)
    kernels.product(None, None, None, None, None, y, 1, None)
    kernels.load_input(y[0], y[0], 64)
    assert not y.any()
    assert padded(17, 16) == 32


USES = """
import sys
import numpy as np
from app.charlm.kernels.products import pack, product_float32, product_int8
weights, nothing = np.eye(64, dtype=np.float32), np.zeros(64, dtype=np.float32)
for product, integers, kind, one in (
    (product_int8, True, np.uint8, 255), (product_float32, False, np.float32, 1),
):
    if product.__name__ in sys.argv:
        p, y = pack(weights, nothing, integers=integers), np.empty((9, 64), dtype=np.float32)
        x = np.full((9, 64), one, dtype=kind)
        product(x, p.panels, p.scales_N, p.offsets_N, p.biases_N, y, 9)
        np.testing.assert_allclose(y, 1.0, rtol=1e-6)
"""


def test_products_compiled_in_different_processes_stay_apart(tmp_path: Path) -> None:
    """Fails when their inner functions have one name: then one is linked in place of the other."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for used in (["product_int8"], ["product_float32"], ["product_int8", "product_float32"]):
        subprocess.run([sys.executable, "-c", USES, *used], env=environment, check=True)
