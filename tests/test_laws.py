"""Laws that hold whatever is given: Hypothesis draws it, the same each time."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.codec import Codec, CodecModel, RateConfig, Rung, picture_file
from bisquit.codec import archive as archives
from bisquit.codec.archive import Archive
from bisquit.config import Settings
from bisquit.editing import EditConfig, Editor, blended
from bisquit.errors import CodecError, ConfigError
from bisquit.frames import encode_png
from bisquit.frames.augment import Augmentation
from bisquit.frames.decode import decode_picture
from bisquit.generate import Pipeline
from bisquit.priors import AnyOrderConfig, build_prior
from bisquit.quantizers import default_quantizer, quantizer_kinds
from bisquit.sampling import SamplingConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.tokens import TokenSet, smallest_unsigned
from bisquit.training import TrainingConfig
from bisquit.transformer import TransformerConfig

few = settings(max_examples=20, suppress_health_check=list(HealthCheck))
TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
SIDES = st.integers(1, 13)


def pictures(sides: st.SearchStrategy[int] = SIDES) -> st.SearchStrategy[np.ndarray]:
    """Return what draws pictures, uint8 (H, W, 3)."""
    shapes = st.tuples(sides, sides, st.just(3))
    return arrays.arrays(np.uint8, shapes, elements=st.integers(0, 255), fill=st.just(7))


@cache
def tokenizer_of(kind: str, bits: int, patch_size: int) -> Tokenizer:
    """Return a tokenizer of random weights."""
    torch.manual_seed(bits)
    quantizer = default_quantizer(kind, bits)
    return Tokenizer(TokenizerConfig(AutoEncoderConfig(patch_size, width=8, depth=1), quantizer)).eval()


@pytest.mark.parametrize("kind", quantizer_kinds())
@few
@given(picture=pictures(), bits=st.integers(1, 12), patch_size=st.integers(1, 5))
def test_any_picture_becomes_tokens_of_the_codebook_and_a_picture_of_its_size(
    kind: str, picture: np.ndarray, bits: int, patch_size: int
):
    try:
        tokenizer = tokenizer_of(kind, bits, patch_size)
    except ConfigError:
        assume(False)
    frames = torch.from_numpy(picture)[None]
    tokens = tokenizer.encode(frames)
    assert tokens.shape == (1, *tokenizer.grid(*picture.shape[:2]))
    assert tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < tokenizer.codebook_size == 2**bits
    remade = tokenizer.decode(tokens, picture.shape[:2])
    assert (remade.shape, remade.dtype) == (frames.shape, torch.uint8)
    assert torch.equal(tokenizer.encode(torch.cat((frames, 255 - frames)))[:1], tokens)


@settings(few, max_examples=8)  # each is flushed to the disk
@given(st.data())
def test_a_file_of_tokens_gives_back_what_was_saved(data: st.DataObject):
    bits, count = data.draw(st.integers(1, 32)), data.draw(st.integers(1, 4))
    size = data.draw(st.tuples(SIDES, SIDES))
    tokenizer = tokenizer_of("lfq", bits, 4)
    classes = tuple(data.draw(st.lists(st.text(), max_size=3, unique=True)))
    tokens = TokenSet(
        data.draw(
            arrays.arrays(
                smallest_unsigned(bits), (count, *tokenizer.grid(*size)), elements=st.integers(0, 2**bits - 1)
            )
        ),
        tokenizer,
        size,
        classes,
        data.draw(arrays.arrays(np.int64, count, elements=st.integers(-1, len(classes) - 1))),
        data.draw(st.none() | arrays.arrays(np.int64, count, elements=st.integers(0, 9))),
    )
    with tempfile.TemporaryDirectory() as folder:
        tokens.save(f"{folder}/tokens.safetensors")
        found = TokenSet.load(f"{folder}/tokens.safetensors")
    assert (found.frame_size, found.classes) == (size, classes)
    assert found.tokens.dtype == tokens.tokens.dtype
    assert np.array_equal(found.tokens, tokens.tokens)
    assert np.array_equal(found.labels, tokens.labels)
    assert (found.groups is None) == (tokens.groups is None)
    assert found.groups is None or np.array_equal(found.groups, tokens.groups)
    assert found.tokenizer.fingerprint() == tokenizer.fingerprint()


POSITIVE = st.floats(1e-30, 1e30)
SETTINGS: dict[type[Settings], dict[str, st.SearchStrategy[Any]]] = {
    TrainingConfig: {
        "epochs": st.integers(1, 10**9),
        "learning_rate": POSITIVE,
        "ema_decay": st.floats(0, 1, exclude_max=True),
        "schedule": st.sampled_from(["constant", "cosine"]),
        "snapshot_epochs": st.lists(st.integers(1, 99)).map(tuple),
        "seed": st.integers(0, 2**63 - 1),
    },
    Augmentation: {"flip": st.booleans(), "shift_px": st.integers(0, 99), "colour": st.floats(0, 0.99)},
    SamplingConfig: {
        "temperature": st.floats(0.01, 100),
        "top_k": st.integers(0, 10**6),
        "top_p": st.floats(0.01, 1),
        "solver": st.sampled_from(["euler", "heun"]),
    },
    RateConfig: {"quality": st.integers(0, 100), "target_bytes": st.none() | st.integers(1, 10**5)},
}


@pytest.mark.parametrize("kind", SETTINGS)
@few
@given(st.data())
def test_settings_travel_as_json_and_come_back(kind: type[Settings], data: st.DataObject):
    try:
        given_settings = kind(**{name: data.draw(values) for name, values in SETTINGS[kind].items()})
    except ConfigError:
        assume(False)
    found = kind.from_dict(json.loads(json.dumps(given_settings.to_dict())))
    assert found == given_settings
    assert given_settings.replace(**{name: getattr(found, name) for name in SETTINGS[kind]}) == found


@few
@given(pictures())
def test_a_picture_comes_back_from_a_file_without_loss(picture: np.ndarray):
    assert np.array_equal(decode_picture(encode_png(picture), "the picture"), picture)


@pytest.fixture(scope="module")
def codec(make_tokenizer, make_prior) -> Codec:
    """A codec of pictures of 2 x 3 patches of four pixels, some of which may be cut."""
    prior = make_prior(bits=3, grid=(2, 3), neighbours=3)
    return Codec([Rung(CodecModel(make_tokenizer(), prior, (8, 12), "torch"))])


@few
@given(data=st.data(), quality=st.integers(0, 100), effort=st.sampled_from([0, 1]))
def test_any_picture_that_is_taken_is_compressed_and_no_damage_to_it_is_another(
    codec: Codec, data: st.DataObject, quality: int, effort: int
):
    size = data.draw(st.tuples(st.integers(5, 8), st.integers(9, 12)))
    picture = data.draw(arrays.arrays(np.uint8, (*size, 3), elements=st.integers(0, 255), fill=st.just(7)))
    (file,) = codec.compress(picture[None], RateConfig(quality=quality, effort=effort))
    (decoded,) = codec.decompress([file])
    assert (decoded.shape, decoded.dtype) == (picture.shape, np.uint8)
    assert (picture_file.unpack(file).size is None) == (size == (8, 12))
    assert codec.compress(picture[None], RateConfig(quality=quality, effort=effort)) == [file]
    place, bit = data.draw(st.integers(0, len(file) - 1)), data.draw(st.integers(0, 7))
    damaged = file[:place] + bytes([file[place] ^ 1 << bit]) + file[place + 1 :]
    with pytest.raises(CodecError):
        codec.decompress([damaged])


@few
@given(st.data())
def test_a_filling_touches_nothing_outside_of_any_mask(data: st.DataObject):
    frame = data.draw(pictures())
    painted = data.draw(arrays.arrays(np.uint8, frame.shape, elements=st.integers(0, 255)))
    mask = data.draw(arrays.arrays(np.bool_, frame.shape[:2]))
    filled = blended(frame[None], painted[None], mask)[0]
    assert np.array_equal(filled[~mask], frame[~mask])
    if mask.all():
        assert np.array_equal(filled, painted)


@pytest.fixture(scope="module")
def editor(make_tokenizer) -> Editor:
    """An editor of pictures of at least 7 x 9."""
    torch.manual_seed(0)
    prior = build_prior(AnyOrderConfig(transformer=TINY), 3, (2, 3))
    return Editor(Pipeline(make_tokenizer(), prior, (7, 9)), edit=EditConfig(candidates=1))


@settings(few, max_examples=8)
@given(st.data())
def test_an_edit_of_any_picture_by_any_mask_leaves_the_rest_as_it_is(editor: Editor, data: st.DataObject):
    size = data.draw(st.tuples(st.integers(7, 12), st.integers(9, 14)))
    picture = data.draw(arrays.arrays(np.uint8, (*size, 3), elements=st.integers(0, 255), fill=st.just(7)))
    mask = data.draw(arrays.arrays(np.bool_, size))
    (edited,) = editor.inpaint(picture, mask)
    assert edited.shape == picture.shape
    assert np.array_equal(edited[~mask], picture[~mask])


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=5)


class AnArchive(RuleBasedStateMachine):
    """An archive beside a list of what must be in it."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "some.bisq"
        archives.write(self.path, [])
        self.wanted: list[tuple[str, bytes]] = []
        self.ends = [self.path.stat().st_size]
        """Where the header and each record end."""

    @rule(target=names, name=NAMES, content=st.binary(max_size=20))
    def append(self, name: str, content: bytes) -> str:
        """A new picture is there, one of a name that is there is refused, and so is what is no name."""
        try:
            archives.check_name(name)
            is_name = True
        except CodecError:
            is_name = False
        if is_name and name not in dict(self.wanted):
            assert archives.append(self.path, [(name, content)]) == 1
            self.wanted.append((name, content))
            self.ends.append(self.path.stat().st_size)
        else:
            with pytest.raises(CodecError):
                archives.append(self.path, [(name, content)])
            self.ends[-1] = self.path.stat().st_size  # what was cut short is gone
        return name

    @rule(name=names)
    def get(self, name: str) -> None:
        """A picture is found by its name, and none that is not there."""
        with Archive(self.path) as archive:
            if name in dict(self.wanted):
                assert archive.read(archive.find(name)) == dict(self.wanted)[name]
            else:
                with pytest.raises(CodecError):
                    archive.find(name)

    @rule(share=st.floats(0, 1))
    def be_cut(self, share: float) -> None:
        """A process is killed while it writes the last record: that one may be lost, and no other."""
        if not self.wanted:
            return
        first, end = self.ends[-2:]
        size = first + int(share * (end - first))
        with self.path.open("r+b") as file:
            file.truncate(size)
        if size < end:
            self.wanted.pop()
            self.ends.pop()

    @rule()
    def copy(self) -> None:
        """All that can be read is what another archive is made of."""
        with Archive(self.path) as archive:
            kept = [(entry.name, archive.read(entry)) for entry in archive]
        archives.write(self.path, kept)
        assert self.path.stat().st_size == self.ends[-1]

    @invariant()
    def holds_what_it_should(self) -> None:
        """What was appended is there, in order."""
        with Archive(self.path) as archive:
            assert [(entry.name, archive.read(entry)) for entry in archive] == self.wanted

    def teardown(self) -> None:
        """Leave nothing."""
        self.folder.cleanup()


AnArchive.TestCase.settings = settings(few, max_examples=15, stateful_step_count=12)
TestArchive = AnArchive.TestCase
