"""Laws of the codec: any tokens, pictures and bytes come back as they were, or are refused."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import roughen

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.codec import Archive, Codec, CodecModel, RateConfig, Rung, picture_file
from bisquit.codec.archive import HEADER, append, check_name
from bisquit.codec.coding import Decoder, _as_floats, encode_intervals
from bisquit.engine.frequencies import TOTAL
from bisquit.errors import CodecError
from bisquit.priors import RasterConfig, RasterPrior
from bisquit.quantizers import BSQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.transformer import TransformerConfig

few = settings(max_examples=12)
PATCH = 4
GRIDS = [(1, 1), (1, 3), (2, 2), (3, 1)]
RATES = st.builds(RateConfig, quality=st.integers(0, 100), effort=st.integers(0, 1))


@cache
def codec_of(grid: tuple[int, int]) -> Codec:
    tokenizer = Tokenizer(TokenizerConfig(AutoEncoderConfig(PATCH, 8, 1), BSQConfig(bits=3))).eval()
    prior = RasterPrior(RasterConfig(transformer=TransformerConfig(8, 1, 2, 12), neighbours=3), 3, grid).eval()
    for seed, module in enumerate((tokenizer, prior)):
        roughen(module, seed)
    return Codec([Rung(CodecModel(tokenizer, prior, None, "torch"))])


def pictures(data: st.DataObject, grid: tuple[int, int], count: int) -> np.ndarray:
    """Pictures of any size whose patches fill a grid, from flat to noise."""
    height, width = (PATCH * side - data.draw(st.integers(0, PATCH - 1)) for side in grid)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    contrast = data.draw(st.sampled_from([0, 1, 40, 256]))
    level = data.draw(st.integers(0, 255))
    noise = rng.integers(-contrast, contrast + 1, (count, height, width, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


@few
@given(st.data(), st.sampled_from(GRIDS), RATES)
def test_pictures_of_any_size_come_back_in_it_and_alike_alone_and_together(
    data: st.DataObject, grid: tuple[int, int], rate: RateConfig
):
    codec, frames = codec_of(grid), pictures(data, grid, 2)
    files = codec.compress(frames, rate)
    decoded = np.stack(codec.decompress(files))
    assert decoded.shape == frames.shape
    assert [codec.compress(frame[None], rate)[0] for frame in frames] == files
    for file, frame in zip(files, decoded, strict=True):
        assert np.array_equal(codec.decompress([file])[0], frame)
        assert codec.knows(codec.open(file))


SIZES = st.none() | st.tuples(st.integers(1, 4096), st.integers(1, 4096))


@few
@given(st.binary(max_size=80), st.binary(min_size=8, max_size=8), SIZES)
def test_a_packed_picture_is_taken_apart_into_what_it_was_made_of(
    content: bytes, fingerprint: bytes, size: tuple[int, int] | None
):
    file = picture_file.unpack(picture_file.pack(content, fingerprint, size))
    picture_file.verify(file, fingerprint)
    assert (file.content, file.size, file.model) == (content, size, fingerprint[:2])


@few
@given(st.data(), st.integers(2, 40))
def test_tokens_of_any_intervals_are_decoded_from_few_bytes_more_than_they_tell(data: st.DataObject, size: int):
    count = data.draw(st.integers(1, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    concentration = data.draw(st.sampled_from([0.01, 1.0, 100.0]))
    shares = rng.dirichlet(np.full(size, concentration), count)
    rows = 1 + np.floor(shares * (TOTAL - 2 * size)).astype(np.int64)
    rows[:, 0] += TOTAL - rows.sum(axis=1)
    tokens = rng.integers(0, size, count)
    ends = rows.cumsum(axis=1)[np.arange(count), tokens]
    chosen = rows[np.arange(count), tokens]
    content = encode_intervals(tokens, np.stack([ends - chosen, chosen], axis=1), size)
    decoder = Decoder(content)
    assert [decoder.take(row) for row in _as_floats(rows)] == tokens.tolist()
    bits = -np.log2(chosen / TOTAL).sum()
    assert len(content) <= bits / 8 + 2


@few
@given(st.text("ab/.\\~é\n\0 ", max_size=8))
def test_a_name_is_refused_or_stays_within_a_folder(name: str):
    try:
        check_name(name)
    except CodecError:
        return
    assert (Path("/a/b") / name).resolve(strict=False).is_relative_to("/a/b")
    assert (Path("/a/b") / name).as_posix() == f"/a/b/{name}"


@few
@given(st.binary(max_size=60))
def test_any_bytes_behind_a_header_are_an_archive_that_takes_more(rest: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.bisq"
        path.write_bytes(HEADER + rest)
        append(path, [("one.png", b"1")])
        with Archive(path) as archive:
            assert archive.read(archive[len(archive) - 1]) == b"1"
