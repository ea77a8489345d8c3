"""FastAPI over ONNX Runtime: one session, one step of a hand-built LSTM graph per character."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper
from starlette.responses import Response

from app.charlm.network import CharNetwork
from app.charlm.vocabulary import RESERVED
from benchmarks.servers.loop import Asked, Loaded, arguments, completions, serve


def _gates(matrix: Any) -> Any:
    """Reorder PyTorch's i, f, g, o to ONNX's i, o, f, c."""
    i, f, g, o = np.split(matrix, 4)
    return np.concatenate((i, o, f, g))


def graph(network: CharNetwork) -> bytes:
    """ids [T, 1] and the states h, c [L, 1, H] -> logits of the last step and new states."""
    assert network.config.cell == "lstm"
    size, layers = network.config.hidden_size, network.config.layers
    constants = {
        "embedding": network.embedding.weight,
        "output": network.output.weight,
        "bias": network.output.bias,
    }
    arrays = {name: tensor.detach().numpy() for name, tensor in constants.items()}
    arrays["last"] = np.array(-1)
    nodes = [helper.make_node("Gather", ["embedding", "ids"], ["x0"])]
    for layer in range(layers):
        of_input, of_hidden, bias_x, bias_h = (t.numpy() for t in network.cell_weights(layer))
        arrays[f"W{layer}"], arrays[f"R{layer}"] = (
            _gates(each)[None] for each in (of_input, of_hidden)
        )
        arrays[f"B{layer}"] = np.concatenate((_gates(bias_x), _gates(bias_h)))[None]
        nodes += [
            helper.make_node(
                "LSTM",
                [f"x{layer}", f"W{layer}", f"R{layer}", f"B{layer}", "", f"h{layer}", f"c{layer}"],
                [f"y{layer}", f"h{layer}_out", f"c{layer}_out"],
                hidden_size=size,
            ),
            helper.make_node("Squeeze", [f"y{layer}", "axis"], [f"x{layer + 1}"]),
        ]
    arrays["axis"] = np.array([1])
    nodes += [
        helper.make_node("Gather", [f"x{layers}", "last"], ["top"], axis=0),
        helper.make_node("Gemm", ["top", "output", "bias"], ["logits"], transB=1),
    ]
    states = [f"{kind}{layer}" for layer in range(layers) for kind in "hc"]
    kind = TensorProto.FLOAT
    state = [1, 1, size]
    whole = helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["T", 1]),
            *(helper.make_tensor_value_info(name, kind, state) for name in states),
        ],
        [
            helper.make_tensor_value_info("logits", kind, [1, network.symbols]),
            *(helper.make_tensor_value_info(f"{name}_out", kind, state) for name in states),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(whole, opset_imports=opsets, ir_version=8).SerializeToString()
    return made


def session(network: CharNetwork) -> onnxruntime.InferenceSession:
    """A session with one thread, like every server here."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph(network), options, providers=["CPUExecutionProvider"])


def characters(
    running: onnxruntime.InferenceSession, loaded: Loaded, asked: Asked
) -> Generator[str, None, None]:
    config, random = loaded.network.config, np.random.default_rng()
    names = [f"{kind}{layer}" for layer in range(config.layers) for kind in "hc"]
    states = [np.zeros((1, 1, config.hidden_size), np.float32) for _ in names]
    ids = loaded.ids(asked.prompt)
    for _ in range(asked.max_tokens):
        fed = {"ids": np.array(ids)[:, None], **dict(zip(names, states, strict=True))}
        logits, *states = running.run(["logits", *(f"{name}_out" for name in names)], fed)
        weights = np.exp(logits[0, RESERVED:] - logits.max())
        reached = np.cumsum(weights)
        place = np.searchsorted(reached, random.random() * reached[-1], side="right")
        ids = [RESERVED + min(int(place), len(weights) - 1)]
        yield loaded.vocabulary.decode(ids)


def main() -> None:
    given = arguments()
    loaded, app = Loaded(given.weights), FastAPI()
    running = session(loaded.network)

    @app.post("/v1/completions")
    def complete(asked: Asked) -> Response:
        return completions(characters(running, loaded, asked), stream=asked.stream)

    serve(app, given.port)


if __name__ == "__main__":
    main()
