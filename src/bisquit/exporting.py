"""Export: a tokenizer as two ONNX graphs, for programs that have no PyTorch.

    encoder.onnx   frames uint8 (B, H, W, 3) ──> tokens int64 (B, h, w)
    decoder.onnx   tokens int64 (B, h, w)    ──> frames uint8 (B, h p, w p, 3)

of any B, H and W; a frame that the patch does not divide is padded by repeating its edge, as elsewhere, and what is
decoded is cropped by whoever knows its size. Each file's metadata names the tokenizer by its fingerprint.

The graphs are put together here, operation by operation, so that they are small, take any size, and say what they do.
They compute what PyTorch computes but for float32's rounding, so tokens are the same but where that decides: where what
a token is decided by lies within `ROUNDING` of the border to another token. `check` measures how far that is from true.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bisquit.atomic import atomic_folder
from bisquit.autoencoder import ResidualBlock, pad_to_patches, patch_grid, to_float
from bisquit.errors import ModelError
from bisquit.quantizers import BSQ, FSQ, LFQ, VQ, Quantizer
from bisquit.quantizers.bits import SignsQuantizer
from bisquit.quantizers.vq import MOST_DISTANCES
from bisquit.tokenizer import Tokenizer

if TYPE_CHECKING:
    import onnx

ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"
OPSET = 20
"""The first that has GELU."""
ROUNDING = 1e-4
"""Of the size that what decides on tokens usually has, its root mean square; float32's rounding is well below it."""
MOST_LEVELS = 1
"""How far a value of a decoded frame may be from PyTorch's, of 255: what lies near a half may be rounded either way."""


@dataclass(frozen=True)
class Checked:
    """How an export compares with PyTorch."""

    tokens: int
    tokens_in_doubt: int
    """Those that differ, all of them within rounding of a border."""
    values_off: int
    """Values of decoded frames that are one level off."""
    values: int


def export(
    tokenizer: Tokenizer,
    folder: str | os.PathLike[str],
    frames: np.ndarray,
    frame_size: tuple[int, int] | None = None,
) -> Checked:
    """Write a tokenizer to a new folder as `encoder.onnx` and `decoder.onnx`, whole or not at all.

    frames: uint8 (B, H, W, 3), on which what was written is compared with PyTorch. frame_size: (H, W) of the frames
    that a prior over its tokens paints, for the metadata. Raises ModelError if onnx or onnxruntime are not installed,
    if the quantizer has no graph, if the folder exists, or if the files compute something else.
    """
    folder = Path(folder)
    if folder.exists():
        raise ModelError(f"{folder} exists: name a new folder")
    metadata = _metadata(tokenizer, frame_size)
    with atomic_folder(folder) as partial:
        _save(encoder_graph(tokenizer), partial / ENCODER_FILE, metadata)
        _save(decoder_graph(tokenizer), partial / DECODER_FILE, metadata)
        return check(tokenizer, partial, frames)


def check(tokenizer: Tokenizer, folder: Path, frames: np.ndarray) -> Checked:
    """Compare what was exported to a folder with PyTorch, on frames, uint8 (B, H, W, 3), by ONNX Runtime on the CPU.

    Raises ModelError if a token differs that is not within rounding of a border, or a value by more than `MOST_LEVELS`.
    """
    encoder, decoder = (_session(folder / name) for name in (ENCODER_FILE, DECODER_FILE))
    tokenizer, given = tokenizer.cpu().eval(), torch.from_numpy(frames)
    tokens, margins, usual = _torch_tokens(tokenizer, given)
    (found,) = encoder.run(None, {"frames": frames})
    differ = torch.from_numpy(found) != tokens
    if (differ & (margins > ROUNDING * usual)).any():
        raise ModelError(f"{int(differ.sum())} of {tokens.numel()} tokens are not PyTorch's: this is a bug of bisquit")
    (remade,) = decoder.run(None, {"tokens": tokens.numpy()})
    off = np.abs(remade.astype(np.int16) - tokenizer.decode(tokens).numpy())
    if off.max() > MOST_LEVELS:
        raise ModelError(f"decoded frames are up to {off.max()} levels from PyTorch's: this is a bug of bisquit")
    return Checked(tokens.numel(), int(differ.sum()), int(np.count_nonzero(off)), off.size)


@torch.no_grad()
def _torch_tokens(tokenizer: Tokenizer, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tokens (B, h, w) of frames, how far each is from another token, and the size of what decides, ()."""
    x = pad_to_patches(to_float(frames), tokenizer.patch_size)
    projected = tokenizer.quantizer.down(tokenizer.autoencoder.encode(x))
    margins = _maker(tokenizer.quantizer).margins(tokenizer.quantizer, projected)
    return tokenizer.quantizer.tokens_of(projected), margins, projected.square().mean().sqrt()


def encoder_graph(tokenizer: Tokenizer) -> onnx.ModelProto:
    """Return the graph from frames to tokens. Raises ModelError if the quantizer has none."""
    graph, p = Graph(), tokenizer.patch_size
    maker = _maker(tokenizer.quantizer)
    x = graph.add("Transpose", graph.add("Cast", "frames", to=graph.FLOAT), perm=[0, 3, 1, 2])
    x = graph.add("Sub", graph.add("Div", x, np.float32(255)), np.float32(0.5))
    missing = graph.add("Mod", graph.add("Neg", graph.add("Shape", x, start=2, end=4)), np.int64(p))
    pads = graph.add("Concat", np.zeros(6, np.int64), missing, axis=0)
    x = graph.add("Pad", x, pads, mode="edge")
    _, stem, *blocks = tokenizer.autoencoder.encoder.children()
    assert isinstance(stem, nn.Conv2d)
    assert stem.bias is not None
    weight = stem.weight.unflatten(1, (3, p, p)).squeeze(
        (4, 5)
    )  # patches, then a linear map: a convolution of stride p
    x = graph.add("Conv", x, weight, stem.bias, strides=[p, p], kernel_shape=[p, p])
    for block in blocks:
        x = graph.residual(x, block)
    tokens = maker.tokens(graph, tokenizer.quantizer, graph.convolution(x, tokenizer.quantizer.down))
    graph.add("Identity", tokens, output="tokens")
    return graph.model("encoder", ("frames", graph.UINT8, ["B", "H", "W", 3]), ("tokens", graph.INT64, ["B", "h", "w"]))


def decoder_graph(tokenizer: Tokenizer) -> onnx.ModelProto:
    """Return the graph from tokens to frames. Raises ModelError if the quantizer has none."""
    graph = Graph()
    quantized = _maker(tokenizer.quantizer).quantized(graph, tokenizer.quantizer, "tokens")
    up = tokenizer.quantizer.up
    assert isinstance(up, nn.Conv2d)
    x = graph.convolution(quantized, up)
    *blocks, head, _ = tokenizer.autoencoder.decoder.children()
    assert isinstance(head, nn.Conv2d)
    for block in blocks:
        x = graph.residual(x, block)
    x = graph.add("DepthToSpace", graph.convolution(x, head), blocksize=tokenizer.patch_size, mode="CRD")
    x = graph.add("Round", graph.add("Mul", graph.add("Add", x, np.float32(0.5)), np.float32(255)))
    x = graph.add("Cast", graph.add("Clip", x, np.float32(0), np.float32(255)), to=graph.UINT8)
    graph.add("Transpose", x, perm=[0, 2, 3, 1], output="frames")
    return graph.model("decoder", ("tokens", graph.INT64, ["B", "h", "w"]), ("frames", graph.UINT8, ["B", "H", "W", 3]))


class Graph:
    """A graph that grows by one operation at a time; arrays among an operation's inputs become its constants."""

    def __init__(self) -> None:
        self._onnx = _library("onnx")
        kinds = self._onnx.TensorProto
        self.FLOAT, self.UINT8, self.INT64 = kinds.FLOAT, kinds.UINT8, kinds.INT64
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str | np.ndarray | np.generic | Tensor, output: str = "", **how: Any) -> str:
        """Add an operation, and return the name of what it gives."""
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        output = output or f"{kind.lower()}-{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, names, [output], **how))
        return output

    def _constant(self, value: np.ndarray | np.generic | Tensor) -> str:
        array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        name = f"constant-{len(self._constants)}"
        self._constants.append(
            self._onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
        return name

    def convolution(self, x: str, layer: nn.Conv2d) -> str:
        """Add a convolution with its padding."""
        assert layer.bias is not None
        assert isinstance(layer.padding, tuple)
        shape: dict[str, Any] = {"kernel_shape": [*layer.kernel_size], "pads": [*layer.padding, *layer.padding]}
        return self.add("Conv", x, layer.weight, layer.bias, **shape)

    def residual(self, x: str, block: nn.Module) -> str:
        """Add a residual block."""
        assert isinstance(block, ResidualBlock)
        hidden = self.convolution(self.add("Gelu", x), block.first)
        return self.add("Add", x, self.convolution(self.add("Gelu", hidden), block.second))

    def model(self, name: str, given: tuple[str, int, list[Any]], made: tuple[str, int, list[Any]]) -> onnx.ModelProto:
        """Return the whole, checked; given, made: name, type and shape of input and output."""
        helper = self._onnx.helper
        ends = [[helper.make_tensor_value_info(*end)] for end in (given, made)]
        graph = helper.make_graph(self._nodes, name, *ends, self._constants)
        model: onnx.ModelProto = helper.make_model(
            graph, producer_name="bisquit", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
        )
        self._onnx.checker.check_model(model, full_check=True)
        return model


@dataclass(frozen=True)
class _Maker:
    """How a family of quantizers is put into graphs."""

    tokens: Callable[[Graph, Any, str], str]
    """From what `down` makes of latents to tokens."""
    quantized: Callable[[Graph, Any, str], str]
    """From tokens to what `up` takes."""
    margins: Callable[[Any, Tensor], Tensor]
    """How far what `down` makes of latents is from where another token begins, (B, h, w)."""


def _tokens_of_signs(graph: Graph, quantizer: SignsQuantizer, projected: str) -> str:
    is_one = graph.add("GreaterOrEqual", projected, np.float32(0))
    return _packed(graph, graph.add("Cast", is_one, to=graph.INT64), 2 ** np.arange(quantizer.bits))


def _signs(graph: Graph, quantizer: SignsQuantizer, tokens: str) -> str:
    bits = _digits(graph, tokens, 2 ** np.arange(quantizer.bits), np.full(quantizer.bits, 2))
    corners = np.array([-quantizer.corner, quantizer.corner], np.float32)
    return graph.add("Gather", corners, bits)


def _sign_margins(quantizer: SignsQuantizer, projected: Tensor) -> Tensor:
    return projected.abs().amin(dim=1)


def _tokens_of_levels(graph: Graph, quantizer: FSQ, projected: str) -> str:
    levels = quantizer.levels.float()
    scaled = graph.add("Mul", graph.add("Tanh", projected), (levels - 1) / 2)
    digits = graph.add("Floor", graph.add("Add", scaled, levels / 2))
    return _packed(graph, graph.add("Cast", digits, to=graph.INT64), 2 ** quantizer.places.flatten().numpy())


def _levels(graph: Graph, quantizer: FSQ, tokens: str) -> str:
    levels = quantizer.levels
    digits = _digits(graph, tokens, 2 ** quantizer.places.flatten().numpy(), levels.flatten().numpy())
    doubled = graph.add("Mul", graph.add("Cast", digits, to=graph.FLOAT), np.float32(2))
    return graph.add("Div", graph.add("Sub", doubled, (levels - 1).float()), (levels - 1).float())


def _level_margins(quantizer: FSQ, projected: Tensor) -> Tensor:
    """Distances before the tanh are longer than after it, so these are too short at most."""
    steps = torch.tanh(projected) * ((quantizer.levels - 1) / 2) + quantizer.levels / 2
    return ((steps - steps.round()).abs() * 2 / (quantizer.levels - 1)).amin(dim=1)


def _tokens_of_nearest(graph: Graph, quantizer: VQ, projected: str) -> str:
    v = graph.add("Transpose", projected, perm=[0, 2, 3, 1])
    products = graph.add("MatMul", v, 2 * quantizer.codebook.T)
    distances = graph.add("Sub", quantizer.codebook.square().sum(dim=1), products)  # but for the square of v
    return graph.add("ArgMin", distances, axis=3, keepdims=0)


def _nearest(graph: Graph, quantizer: VQ, tokens: str) -> str:
    return graph.add("Transpose", graph.add("Gather", quantizer.codebook, tokens), perm=[0, 3, 1, 2])


def _nearest_margins(quantizer: VQ, projected: Tensor) -> Tensor:
    """The distance to the nearest of the planes that are half-way from the nearest vector to each other one."""
    v, codebook = projected.movedim(1, -1).double(), quantizer.codebook.double()
    parts = []
    for part in v.flatten(0, 2).split(max(1, MOST_DISTANCES // len(codebook))):
        squared = torch.cdist(part, codebook).square()
        nearest = squared.min(dim=1)
        apart = torch.cdist(codebook[nearest.indices], codebook)
        margins = (squared - nearest.values.unsqueeze(1)) / (2 * apart)
        margins.scatter_(1, nearest.indices.unsqueeze(1), torch.inf)
        parts.append(margins.nan_to_num(0.0, posinf=torch.inf).amin(dim=1))  # 0 / 0 for a vector that is there twice
    return torch.cat(parts).view(v.shape[:3]).float()


_SIGNS = _Maker(_tokens_of_signs, _signs, _sign_margins)
_MAKERS: dict[type[Quantizer], _Maker] = {
    BSQ: _SIGNS,
    LFQ: _SIGNS,
    FSQ: _Maker(_tokens_of_levels, _levels, _level_margins),
    VQ: _Maker(_tokens_of_nearest, _nearest, _nearest_margins),
}


def _maker(quantizer: Quantizer) -> _Maker:
    """Return how a quantizer is put into graphs. Raises ModelError if it is not known."""
    if type(quantizer) not in _MAKERS:
        raise ModelError(
            f"tokenizers of {type(quantizer).__name__} have no ONNX graph yet: those of bsq, lfq, fsq and vq have"
        )
    return _MAKERS[type(quantizer)]


def _packed(graph: Graph, digits: str, places: np.ndarray) -> str:
    """Return tokens (B, h, w) of int64 digits (B, n, h, w), each times its place."""
    placed = graph.add("Mul", digits, places.astype(np.int64).reshape(-1, 1, 1))
    return graph.add("ReduceSum", placed, np.array([1], np.int64), keepdims=0)


def _digits(graph: Graph, tokens: str, places: np.ndarray, counts: np.ndarray) -> str:
    """Return the int64 digits (B, n, h, w) of tokens (B, h, w): so many of each place."""
    columns = [array.astype(np.int64).reshape(-1, 1, 1) for array in (places, counts)]
    unsqueezed = graph.add("Unsqueeze", tokens, np.array([1], np.int64))
    return graph.add("Mod", graph.add("Div", unsqueezed, columns[0]), columns[1])


def _metadata(tokenizer: Tokenizer, frame_size: tuple[int, int] | None) -> dict[str, str]:
    facts = {
        "tokenizer": tokenizer.fingerprint(),
        "config": json.dumps(tokenizer.config.to_dict()),
        "bits": str(tokenizer.bits),
        "patch_size": str(tokenizer.patch_size),
    }
    if frame_size is not None:
        facts["frame_size"] = "x".join(map(str, frame_size))
        facts["grid"] = "x".join(map(str, patch_grid(*frame_size, tokenizer.patch_size)))
    return {f"bisquit.{name}": value for name, value in facts.items()}


def _save(model: onnx.ModelProto, path: Path, metadata: dict[str, str]) -> None:
    library = _library("onnx")
    library.helper.set_model_props(model, metadata)
    library.save(model, path)


def _session(path: Path) -> Any:
    """Return ONNX Runtime's session of a file, on the CPU."""
    return _library("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])


def _library(name: str) -> Any:
    """Return onnx or onnxruntime. Raises ModelError if it is not installed."""
    try:
        if name == "onnxruntime":
            import onnxruntime

            return onnxruntime
        import onnx

        return onnx
    except ImportError as error:
        raise ModelError(f"export needs {name}: pip install 'bisquit[onnx]'") from error
