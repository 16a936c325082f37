"""The native tokenizer: to the last bit that of PyTorch, on every kind of kernels and any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bisquit.engine import EngineTokenizer, IntegerTokenizer, engine_missing, prepare_tokenizer, usable_kernels
from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.quantizers import FSQConfig, VQConfig

pytestmark = pytest.mark.skipif(engine_missing() is not None, reason="the engine is not built here")
KERNELS = usable_kernels() if engine_missing() is None else []

SHAPES = {
    "as the design": {"patch_size": 5, "width": 128, "bits": 10},
    "wider than a panel": {"patch_size": 4, "width": 40, "bits": 7, "depth": 2},
    "narrow": {"patch_size": 2, "width": 8, "bits": 1},
    "patches of more values than channels": {"patch_size": 8, "width": 16, "bits": 18, "decoder_depth": 3},
    "a deep encoder": {"patch_size": 4, "width": 33, "bits": 32, "depth": 3, "decoder_depth": 1},
    "no blocks": {"patch_size": 4, "width": 32, "bits": 5, "depth": 0},
    "levels": {"patch_size": 4, "width": 24, "quantizer": FSQConfig((8, 4, 4, 2, 128))},
    "vectors": {"patch_size": 4, "width": 24, "quantizer": VQConfig(bits=7, code_width=6)},
    "vectors wider than codes": {"patch_size": 2, "width": 8, "quantizer": VQConfig(bits=3, code_width=70)},
}


@pytest.fixture(scope="module", params=SHAPES)
def integer(request: pytest.FixtureRequest, make_tokenizer) -> IntegerTokenizer:
    return IntegerTokenizer(make_tokenizer(**SHAPES[request.param]))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", [(40, 60), (23, 51), (8, 8), (1, 3)], ids=str)
def test_tokens_pixels_and_slopes_are_the_references(
    integer: IntegerTokenizer, make_noise, kernels: str, size: tuple[int, int]
) -> None:
    engine = EngineTokenizer(integer, threads=1, kernels=kernels)
    frames = torch.from_numpy(make_noise(2, *size)[:])
    tokens = integer.encode(frames)
    assert torch.equal(engine.encode(frames), tokens)
    assert torch.equal(engine.decode(tokens, size), integer.decode(tokens, size))
    shuffled = tokens.flip(1, 2)  # whose pictures are far from the frames
    assert torch.equal(engine.slopes(shuffled, frames), integer.slopes(shuffled, frames))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_nothing_depends_on_the_batch_or_on_threads(make_tokenizer, make_noise, threads: int) -> None:
    integer = IntegerTokenizer(make_tokenizer(width=64))
    engine, frames = EngineTokenizer(integer, threads=threads), torch.from_numpy(make_noise(7, 24, 36)[:])
    tokens = engine.encode(frames)
    decoded, slopes = engine.decode(tokens, (24, 36)), engine.slopes(tokens, frames)
    assert torch.equal(tokens, integer.encode(frames))
    for batch in (1, 3):
        parts = frames.split(batch), tokens.split(batch)
        assert torch.equal(torch.cat([engine.encode(part) for part in parts[0]]), tokens)
        assert torch.equal(torch.cat([engine.decode(part, (24, 36)) for part in parts[1]]), decoded)
        found = [engine.slopes(of_tokens, of_frames) for of_frames, of_tokens in zip(*parts, strict=True)]
        assert torch.equal(torch.cat(found), slopes)


def test_a_batch_may_be_empty(make_tokenizer) -> None:
    engine = EngineTokenizer(IntegerTokenizer(make_tokenizer()))
    assert engine.decode(torch.zeros(0, 2, 3, dtype=torch.int64), (8, 12)).shape == (0, 8, 12, 3)


def test_views_are_taken_as_they_look(make_tokenizer, make_noise) -> None:
    integer = IntegerTokenizer(make_tokenizer())
    engine, frames = EngineTokenizer(integer), torch.from_numpy(make_noise(4)[:])
    assert torch.equal(engine.encode(frames.flip(2)[::2]), integer.encode(frames.flip(2)[::2]))


@pytest.mark.parametrize("token", [-1, 64, 2**40])
def test_tokens_outside_of_the_codebook_are_refused(make_tokenizer, token: int) -> None:
    engine = EngineTokenizer(IntegerTokenizer(make_tokenizer(bits=6)))
    tokens = torch.zeros(1, 2, 3, dtype=torch.int64)
    tokens[0, 1, 2] = token
    with pytest.raises(TokenError, match=r"must be in \[0, 2\*\*6\)"):
        engine.decode(tokens, (8, 12))


def test_other_arrays_are_refused(make_tokenizer, make_noise) -> None:
    engine = EngineTokenizer(IntegerTokenizer(make_tokenizer()))
    frames = torch.from_numpy(make_noise(2)[:])
    with pytest.raises(ShapeError, match="uint8"):
        engine.encode(frames.float())
    for tokenizer in (engine, IntegerTokenizer(make_tokenizer())):
        for shape in ((2, 3, 2), (1, 2, 3)):
            with pytest.raises(ShapeError, match=r"they must be \(2, 2, 3\)"):
                tokenizer.slopes(torch.zeros(shape, dtype=torch.int64), frames)
        with pytest.raises(TokenError):
            tokenizer.slopes(torch.full((2, 2, 3), 8), frames)


@pytest.mark.parametrize("shape", [(1, 1, 8193), (1, 0, 3)])
def test_pictures_of_no_size_or_too_large_are_refused(make_tokenizer, shape: tuple[int, ...]) -> None:
    engine = EngineTokenizer(IntegerTokenizer(make_tokenizer(patch_size=2)))
    tokens = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ShapeError, match="must be between 1 and 16384"):
        engine.decode(tokens, (1, 1))
    if shape[1]:
        frames = torch.zeros(1, 2, 2 * shape[2], 3, dtype=torch.uint8)
        for refused in (lambda: engine.slopes(tokens, frames), lambda: engine.encode(frames)):
            with pytest.raises(ShapeError, match="width is 16386"):
                refused()


@pytest.mark.parametrize("tokens", [torch.zeros(2, 3), torch.zeros(1, 2, 3), torch.zeros(2, 3, dtype=torch.int64)])
def test_tokens_that_are_none_are_refused(make_tokenizer, make_noise, tokens: torch.Tensor) -> None:
    integer = IntegerTokenizer(make_tokenizer())
    frames = torch.from_numpy(make_noise(1)[:])
    for tokenizer in (integer, EngineTokenizer(integer)):
        for refused in (lambda t=tokenizer: t.decode(tokens, (8, 12)), lambda t=tokenizer: t.slopes(tokens, frames)):
            with pytest.raises(ShapeError, match=r"they must be int64 \(B, h, w\)"):
                refused()
        with pytest.raises(ShapeError, match="uint8"):
            tokenizer.slopes(torch.zeros(1, 2, 3, dtype=torch.int64), frames[0, 0])


def test_the_backend_is_chosen_by_name(make_tokenizer) -> None:
    assert isinstance(prepare_tokenizer(make_tokenizer()), EngineTokenizer)
    assert isinstance(prepare_tokenizer(make_tokenizer(), "engine"), EngineTokenizer)
    assert isinstance(prepare_tokenizer(make_tokenizer(), "torch"), IntegerTokenizer)
    with pytest.raises(ConfigError, match="backend"):
        prepare_tokenizer(make_tokenizer(), "fast")  # type: ignore[arg-type]


def test_kernels_that_are_not_there_are_named(make_tokenizer) -> None:
    with pytest.raises(ConfigError, match="kernels is abacus"):
        EngineTokenizer(IntegerTokenizer(make_tokenizer()), kernels="abacus")
    with pytest.raises(ConfigError, match="threads is 0"):
        EngineTokenizer(IntegerTokenizer(make_tokenizer()), threads=0)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("stem.codes", None, "stem.codes is missing"),
        ("stem.codes", np.zeros((1, 8, 47), np.int8), "it must be"),
        ("stem.codes", np.full((1, 8, 48), -128, np.int8), "holds -128"),
        ("up.step", np.full(8, np.nan, np.float32), "not finite"),
        ("up.step", np.zeros(8, np.float64), "must be a contiguous array"),
        ("decoder_back.0.second.bias", None, "decoder_back.0.second.bias is missing"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    make_tokenizer, monkeypatch: pytest.MonkeyPatch, name: str, array: np.ndarray | None, message: str
) -> None:
    from bisquit.engine import native_tokenizer

    integer = IntegerTokenizer(make_tokenizer(patch_size=4, width=8, bits=6))
    arrays = native_tokenizer.integer_arrays(integer)
    arrays.pop(name)
    monkeypatch.setattr(native_tokenizer, "integer_arrays", lambda _: arrays | ({} if array is None else {name: array}))
    with pytest.raises(ModelError, match=message):
        EngineTokenizer(integer)
