"""ONNX Runtime with the weights of a `RasterPrior`: one step of the decoder as a graph, run once a token.

    last (B,), position (1,) ──> embedding + place ──[ norm, attention, norm, feed-forward ] x n_layers──> logits
    past keys and values ──────────────────────────────┘└────> present keys and values

All inputs and outputs are bound once to memory of ours, so that nothing is copied in or out. Keys and values lie in
buffers of the full length, which the attention (GroupQueryAttention, ONNX Runtime's own for decoders, with heads of a
multiple of 8 channels) takes as past and as present at once and adds a step to in place. With the Concat that an export
of a plain PyTorch step gives, all of them are copied at each step, and it takes twice as long or more. Tokens are drawn
in NumPy, whose one thread is not in the way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from bisquit.priors import RasterPrior
from bisquit.transformer import Block


class StepGraph:
    """One step of a prior's decoder, as an ONNX model; nodes are added in the order of the computation."""

    def __init__(self, prior: RasterPrior) -> None:
        shape = prior.config.transformer
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs = [
            helper.make_tensor_value_info("last", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("position", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("before", TensorProto.INT32, ["batch"]),
            helper.make_tensor_value_info("total", TensorProto.INT32, []),
        ]
        self.outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", prior.codebook_size])]
        self.cache_shape = ["batch", shape.n_heads, prior.length, shape.head_width]
        embedding = torch.cat((prior.embedding.weight, prior.start_vector[None]))
        places = prior.places()
        x = self.node(
            "Add",
            self.node("Gather", self.weight("embedding", embedding), "last"),
            self.node("Gather", self.weight("places", places), "position"),
        )
        self.axis = self.weight("axis", torch.tensor([1]))
        for i, block in enumerate(prior.transformer.blocks):
            x = self.block(f"block{i}", block, x)
        self.linear("head", prior.head, self.norm("norm", prior.transformer.norm, x), output="logits")

    def block(self, name: str, block: Block, x: str) -> str:
        """Add a block to the graph, with the inputs and outputs of its cache, and return its output's name."""
        qkv = self.linear(f"{name}.qkv", block.attention.qkv, self.norm(f"{name}.norm1", block.attention_norm, x))
        past, present = ([f"{when}.{name}.{what}" for what in ("keys", "values")] for when in ("past", "present"))
        self.inputs += [helper.make_tensor_value_info(key, TensorProto.FLOAT, self.cache_shape) for key in past]
        self.outputs += [helper.make_tensor_value_info(key, TensorProto.FLOAT, self.cache_shape) for key in present]
        attention = helper.make_node(
            "GroupQueryAttention",
            [self.node("Unsqueeze", qkv, self.axis), "", "", *past, "before", "total"],
            [f"{name}.attention", *present],
            domain="com.microsoft",
            num_heads=block.attention.n_heads,
            kv_num_heads=block.attention.n_heads,
        )
        self.nodes.append(attention)
        y = self.node("Squeeze", f"{name}.attention", self.axis)
        x = self.node("Add", x, self.linear(f"{name}.out", block.attention.out, y))
        hidden = self.linear(f"{name}.wide", block.mlp[0], self.norm(f"{name}.norm2", block.mlp_norm, x))
        return self.node("Add", x, self.linear(f"{name}.narrow", block.mlp[2], self.node("Gelu", hidden)))

    def weight(self, name: str, values: Tensor) -> str:
        """Add a constant."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values.detach().numpy()), name))
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        """Add a node of one output and return its name."""
        output = output or f"{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def linear(self, name: str, module: nn.Linear, x: str, output: str | None = None) -> str:
        """Add a linear map of x (B, in)."""
        weight, bias = self.weight(f"{name}.weight", module.weight.T), self.weight(f"{name}.bias", module.bias)
        return self.node("Gemm", x, weight, bias, output=output)

    def norm(self, name: str, module: nn.LayerNorm, x: str) -> str:
        """Add a layer norm of x (B, width)."""
        weight, bias = self.weight(f"{name}.weight", module.weight), self.weight(f"{name}.bias", module.bias)
        return self.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=module.eps)

    def session(self) -> ort.InferenceSession:
        """Return what runs the graph, on as many threads as PyTorch would."""
        graph = helper.make_graph(self.nodes, "step", self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.checker.check_model(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Decoder:
    """The step graph and the memory that it is bound to, for one batch size; not to be copied."""

    def __init__(self, prior: RasterPrior, batch: int) -> None:
        graph = StepGraph(prior)
        self.start, self.length, self.batch = prior.codebook_size, prior.length, batch
        self.last = np.zeros(batch, np.int64)
        self.logits = np.zeros((batch, prior.codebook_size), np.float32)
        self._position = np.zeros(1, np.int64)
        self._before, self._total = np.zeros(batch, np.int32), np.zeros((), np.int32)
        self._caches = {
            name: np.zeros((batch, *graph.cache_shape[1:]), np.float32)
            for name in (value.name.removeprefix("past.") for value in graph.inputs)
            if name.startswith("block")
        }
        self._session = graph.session()
        self._binding = self._session.io_binding()
        inputs = {"last": self.last, "position": self._position, "before": self._before, "total": self._total}
        for name, array in (inputs | {f"past.{key}": cache for key, cache in self._caches.items()}).items():
            self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in ({"logits": self.logits} | {f"present.{k}": c for k, c in self._caches.items()}).items():
            self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def step(self, step: int) -> np.ndarray:
        """Return the logits (B, codebook) of the token at `step`, after the one in `last`; the array is reused."""
        self._position[0] = step
        self._before[:], self._total[()] = step, step + 1
        self._session.run_with_iobinding(self._binding)
        return self.logits


def logits(prior: RasterPrior, tokens: Tensor) -> Tensor:
    """Return the logits (B, h w, codebook) of tokens (B, h, w), to be compared with `prior.logits`."""
    decoder = Decoder(prior, tokens.shape[0])
    decoder.last[:] = decoder.start
    steps = []
    for step, true in enumerate(tokens.flatten(1).T.numpy()):
        steps.append(decoder.step(step).copy())
        decoder.last[:] = true
    return torch.from_numpy(np.stack(steps, axis=1))


def painter(prior: RasterPrior, batch: int) -> Callable[[], np.ndarray]:
    """Return what paints `batch` pictures: their tokens, (batch, h w)."""
    decoder = Decoder(prior, batch)
    random = np.random.default_rng(0)

    def paint() -> np.ndarray:
        decoder.last[:] = decoder.start
        tokens = np.empty((batch, decoder.length), np.int64)
        for step in range(decoder.length):
            tokens[:, step] = decoder.last[:] = draw(decoder.step(step), random)
        return tokens

    return paint


def draw(logits: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw a token for each picture, with the chances softmax(logits), (B, codebook)."""
    sums = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
    return (sums <= random.random((len(logits), 1)) * sums[:, -1:]).sum(axis=1)
