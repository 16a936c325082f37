"""ONNX: what is exported computes what PyTorch does, or is refused, for every quantizer that has a graph."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bisquit import exporting
from bisquit.autoencoder import pad_to_patches, to_float
from bisquit.errors import ModelError
from bisquit.exporting import DECODER_FILE, ENCODER_FILE, ROUNDING, check, export
from bisquit.quantizers import FSQConfig, LFQConfig, PyramidBSQConfig, QuantizerConfig, VQConfig

QUANTIZERS: dict[str, QuantizerConfig | None] = {
    "bsq": None,
    "lfq": LFQConfig(bits=32),
    "fsq": FSQConfig((8, 2, 4)),
    "vq": VQConfig(bits=5),
}


@pytest.fixture
def frames() -> np.ndarray:
    """Return 4 frames of 9 x 14, which 4 does not divide."""
    return np.random.default_rng(0).integers(0, 256, (4, 9, 14, 3), dtype=np.uint8)


def run_graph(path: Path, **given: np.ndarray) -> np.ndarray:
    (made,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, given)
    return made


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_graphs_compute_what_pytorch_does_for_frames_of_any_size(make_tokenizer, frames, tmp_path: Path, kind: str):
    tokenizer = make_tokenizer(quantizer=QUANTIZERS[kind], decoder_depth=2)
    checked = export(tokenizer, tmp_path / "onnx", frames)
    assert (checked.tokens, checked.values) == (4 * 3 * 4, 4 * 12 * 16 * 3)
    assert checked.tokens_in_doubt <= 1
    assert checked.values_off <= checked.values // 100
    for given in (frames[:1], frames[:2, :4, :7]):
        tokens = tokenizer.encode(torch.from_numpy(given)).numpy()
        found = run_graph(tmp_path / "onnx" / ENCODER_FILE, frames=given)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, tokens)
        remade = run_graph(tmp_path / "onnx" / DECODER_FILE, tokens=tokens)
        assert remade.dtype == np.uint8
        wanted = tokenizer.decode(torch.from_numpy(tokens)).numpy()
        assert np.abs(remade.astype(int) - wanted).max() <= 1


def test_files_name_the_tokenizer_and_the_grid(make_tokenizer, frames, tmp_path: Path):
    tokenizer = make_tokenizer()
    export(tokenizer, tmp_path / "onnx", frames, frame_size=(9, 14))
    for name in (ENCODER_FILE, DECODER_FILE):
        metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "onnx" / name).metadata_props}
        assert metadata["bisquit.tokenizer"] == tokenizer.fingerprint()
        assert (metadata["bisquit.frame_size"], metadata["bisquit.grid"]) == ("9x14", "3x4")
        assert (metadata["bisquit.bits"], metadata["bisquit.patch_size"]) == ("3", "4")


@pytest.mark.parametrize(
    ("weight", "said"), [("quantizer.down.bias", "tokens"), ("autoencoder.decoder.1.bias", "levels")]
)
def test_files_that_compute_something_else_are_refused(make_tokenizer, frames, tmp_path: Path, weight: str, said: str):
    tokenizer, other = make_tokenizer(), make_tokenizer()
    export(tokenizer, tmp_path / "onnx", frames)
    with torch.no_grad():
        other.state_dict()[weight].add_(0.5)
    with pytest.raises(ModelError, match=f"{said}.*bug"):
        check(other, tmp_path / "onnx", frames)


def test_what_is_refused_leaves_nothing(make_tokenizer, frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = exporting.decoder_graph(make_tokenizer(seed=1))
    monkeypatch.setattr(exporting, "decoder_graph", lambda tokenizer: other)
    with pytest.raises(ModelError, match="bug"):
        export(make_tokenizer(), tmp_path / "onnx", frames)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_no_other_token_is_nearer_than_the_margin(make_tokenizer, kind: str):
    quantizer = make_tokenizer(quantizer=QUANTIZERS[kind]).quantizer
    generator = torch.Generator().manual_seed(0)
    channels = quantizer.down.out_channels
    projected = 2 * torch.randn(40, channels, 1, 1, generator=generator)
    margins = exporting._maker(quantizer).margins(quantizer, projected).unsqueeze(1)
    tokens = quantizer.tokens_of(projected)
    nudges = torch.nn.functional.normalize(torch.randn(200, 1, channels, 1, 1, generator=generator), dim=2)
    assert all(torch.equal(quantizer.tokens_of(projected + 0.99 * margins * nudge), tokens) for nudge in nudges)
    assert any(not torch.equal(quantizer.tokens_of(projected + 3 * margins * nudge), tokens) for nudge in nudges)


@pytest.mark.parametrize(("beyond", "is_refused"), [(0.5, False), (5.0, True)])
def test_only_a_token_within_rounding_of_a_border_may_differ(
    make_tokenizer, frames, tmp_path: Path, beyond: float, is_refused: bool
):
    tokenizer, other = make_tokenizer(bits=1), make_tokenizer(bits=1)
    export(tokenizer, tmp_path / "onnx", frames)
    _, margins, usual = exporting._torch_tokens(tokenizer, torch.from_numpy(frames))
    x = pad_to_patches(to_float(torch.from_numpy(frames)), 4)
    with torch.no_grad():
        projected = tokenizer.quantizer.down(tokenizer.autoencoder.encode(x)).flatten()
        nearest = projected[projected.abs().argmin()]
        assert margins.min() == nearest.abs()
        other.quantizer.down.bias -= nearest + beyond * ROUNDING * usual * nearest.sign()  # it is across the border now
    if is_refused:
        with pytest.raises(ModelError, match="1 of 48 tokens are not PyTorch's"):
            check(other, tmp_path / "onnx", frames)
    else:
        assert check(other, tmp_path / "onnx", frames).tokens_in_doubt == 1


def test_a_pyramid_and_a_folder_that_exists_are_refused(make_tokenizer, frames, tmp_path: Path):
    with pytest.raises(ModelError, match="PyramidBSQ have no ONNX graph"):
        export(make_tokenizer(quantizer=PyramidBSQConfig(bits=3, scales=(0.5, 1.0))), tmp_path / "onnx", frames)
    with pytest.raises(ModelError, match="name a new folder"):
        export(make_tokenizer(), tmp_path, frames)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_without_its_libraries_one_line_says_what_to_install(
    make_tokenizer, frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModelError, match=rf"{library}: pip install 'bisquit\[onnx\]'"):
        export(make_tokenizer(), tmp_path / "onnx", frames)
    assert not any(tmp_path.iterdir())
