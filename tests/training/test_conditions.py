"""What a prior is told in training: classes, sentences, nothing; and that it learns from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import letters_read
from tests.training.conftest import ANY_ORDER, CAPTIONS, PRIOR, USUAL

from bisquit.checkpoint import PRIOR_FILE, load_prior
from bisquit.conditioning import Conditions
from bisquit.errors import ConfigError, TokenError
from bisquit.generate import load
from bisquit.priors import CausalPrior, build_prior
from bisquit.record import RunRecord
from bisquit.text import Reader
from bisquit.tokens import TokenSet
from bisquit.training import PriorRecipe, train_prior
from bisquit.training.conditions import Teller

LABELS = torch.arange(4000) % 3 - 1  # none, ice, sand


def test_so_many_pictures_are_left_unsaid():
    torch.manual_seed(0)
    said = Teller(Conditions(("ice", "sand")), unsaid=0.25).draw(LABELS)
    assert torch.equal(said[LABELS < 0], torch.zeros_like(said[LABELS < 0]))
    known = said[LABELS >= 0]
    assert (known.sum(dim=1) == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    told = known.sum(dim=1) > 0
    assert torch.equal(known[told].argmax(dim=1), LABELS[LABELS >= 0][told])


def test_half_of_the_time_a_class_is_told_by_one_of_its_sentences(letters: str):
    torch.manual_seed(0)
    sentences = [("a", "i", "u"), (), ("o",)]
    reader = Reader(letters, torch.tensor([[3.0, 0, 2, 0, 1], [0, 3, 0, 0, 0], [0, 0, 0, 3, 0]]), torch.zeros(3))
    told = Teller(Conditions(("ice", "none", "sand"), reader), unsaid=0.0, captions=sentences)
    labels = LABELS.clamp_min(0) * 2
    said = told.draw(labels)
    torch.testing.assert_close(said.sum(dim=1), torch.ones(len(labels)))
    by_class = said.amax(dim=1) == 1
    assert by_class.float().mean().item() == pytest.approx(0.5, abs=0.03)
    for label, of_class in enumerate(sentences):
        words = said[(labels == label) & ~by_class]
        for sentence in of_class:
            is_this = (words == reader.read([sentence])[0]).all(dim=1)
            assert is_this.float().mean().item() == pytest.approx(1 / len(of_class), abs=0.05)
    assert (told.draw(torch.ones(50, dtype=torch.int64))[:, 1] == 1).all()


def test_in_validation_every_class_is_said():
    teller = Teller(Conditions(("ice", "sand")), unsaid=0.9)
    assert teller.plain(torch.tensor([1, -1, 0])).tolist() == [[0, 1], [0, 0], [1, 0]]


def of_two_kinds(tokens: TokenSet) -> TokenSet:
    """Return pictures of one token each, which is their class's."""
    labels = np.arange(len(tokens)) % 2
    codes = (labels[:, None, None] * 9 + 3).astype(np.uint8).repeat(2, axis=1).repeat(3, axis=2)
    return replace(tokens, tokens=codes, labels=labels)


def test_a_prior_learns_what_its_classes_look_like(data, tmp_path: Path):
    tokens, valid = of_two_kinds(data.tokens), of_two_kinds(data.valid_tokens)
    recipe = PriorRecipe(PRIOR, training=USUAL.replace(epochs=6), classes=True)
    train_prior(recipe, tokens, valid, tmp_path)
    saved = load_prior(tmp_path / PRIOR_FILE)
    assert saved.conditions == Conditions(("ice", "sand"))
    model = load(tmp_path)
    for name, token in (("ice", 3), ("sand", 12)):
        condition = saved.conditions.of_class(name)[None]
        first = saved.prior.logits(tokens.batch(slice(0, 1)), saved.prior.conditioned(condition, 1))[0, 0]
        assert first.softmax(0)[token] > 0.6  # of 16
        drawn = model.sample(4, seed=0, class_name=name)
        assert drawn.shape == (4, *tokens.frame_size, 3)


def test_valid_pictures_are_told_by_the_names_of_the_classes_to_train_on(data, tmp_path: Path):
    tokens, valid = of_two_kinds(data.tokens), of_two_kinds(data.valid_tokens)
    turned = replace(valid, classes=("sand", "ice"), labels=1 - valid.labels)
    recipe = PriorRecipe(PRIOR, training=USUAL, classes=True)
    for name, of_names in (("one", valid), ("other", turned)):
        train_prior(recipe, tokens, of_names, tmp_path / name)
    one, other = ((tmp_path / name / PRIOR_FILE).read_bytes() for name in ("one", "other"))
    assert one == other


def test_the_record_names_classes_and_captions(data, tmp_path: Path):
    recipe = PriorRecipe(ANY_ORDER, training=USUAL, classes=True)
    with letters_read():
        train_prior(recipe, data.tokens, data.valid_tokens, tmp_path, captions=CAPTIONS)
        assert load_prior(tmp_path / PRIOR_FILE).conditions.size == 2
    record = RunRecord.load(tmp_path)
    assert record.data["classes"] == ["ice", "sand"]
    assert record.data["captions"] == CAPTIONS.fingerprint()
    assert record.recipe["prior"]["condition_size"] == 2


def test_what_another_prior_knows_of_classes_finds_its_place(data, tmp_path: Path):
    tokens = data.tokens
    config = PRIOR.replace(condition_size=3)
    start = build_prior(config, tokens.tokenizer.bits, tokens.grid)
    assert isinstance(start, CausalPrior)
    still = USUAL.replace(epochs=1, learning_rate=1e-9, muon_learning_rate=1e-9, weight_decay=0, ema_decay=0)
    prior = train_prior(
        PriorRecipe(PRIOR, training=still, classes=True),
        *(tokens, data.valid_tokens, tmp_path),
        start=start,
        start_conditions=Conditions(("sand", "lava", "ice")),
    )
    assert isinstance(prior, CausalPrior)
    assert prior.condition is not None
    assert start.condition is not None
    torch.testing.assert_close(prior.condition.weight, start.condition.weight[:, [2, 0]], rtol=0, atol=1e-6)


def test_a_size_of_conditions_that_nothing_is_told_by_is_refused(data, tmp_path: Path):
    with pytest.raises(ConfigError, match="pass --classes"):
        train_prior(PriorRecipe(PRIOR.replace(condition_size=3)), data.tokens, data.valid_tokens, tmp_path)
    assert not any(tmp_path.iterdir())


def test_captions_without_classes_are_refused(data, tmp_path: Path):
    with pytest.raises(ConfigError, match="--classes"):
        train_prior(PriorRecipe(PRIOR), data.tokens, data.valid_tokens, tmp_path, captions=CAPTIONS)


def test_classes_of_pictures_that_have_none_are_refused(data, tmp_path: Path):
    bare = replace(data.tokens, classes=(), labels=np.full(len(data.tokens), -1))
    with pytest.raises(TokenError, match="none of the pictures"):
        train_prior(PriorRecipe(PRIOR, classes=True), bare, data.valid_tokens, tmp_path)
    assert not any(tmp_path.iterdir())
