"""Conditions: classes and prompts as numbers, and what cannot be asked for."""

from __future__ import annotations

import pytest
import torch

from bisquit.conditioning import LONGEST_PROMPT, Conditions
from bisquit.errors import ConditionError, ConfigError
from bisquit.text import learn_to_read

CLASSES = ("desert", "forest", "icy")


@pytest.fixture
def worded(letters: str) -> Conditions:
    """Conditions with words."""
    return Conditions(CLASSES, learn_to_read(letters, [("sands",), ("trees",), ("ice in inlets",)]))


def test_a_class_is_one_at_its_place(worded: Conditions):
    assert worded.size == 3
    assert worded.of_class("forest").tolist() == [0, 1, 0]
    assert worded.of_labels(torch.tensor([2, -1, 0])).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_a_prompt_is_the_chance_of_each_class(worded: Conditions):
    asked = worded.of_prompt("many parasols")
    assert asked.sum().item() == pytest.approx(1, abs=1e-6)
    assert asked.argmax() == CLASSES.index("desert")


def test_what_two_know_is_found_by_its_names(worded: Conditions):
    assert worded.shared_with(Conditions(("icy", "beach", "desert"))) == ([0, 2], [2, 0])
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
    assert worded.of_prompt("a" * LONGEST_PROMPT).argmax() == CLASSES.index("desert")


def test_a_model_that_knows_no_classes_or_words_says_so():
    with pytest.raises(ConditionError, match="knows no classes"):
        Conditions().of_class("icy")
    with pytest.raises(ConditionError, match="knows no words"):
        Conditions(CLASSES).of_prompt("a beach")


def test_conditions_that_cannot_be_are_refused(worded: Conditions):
    with pytest.raises(ConfigError, match="classes"):
        Conditions(("a", "a"))
    with pytest.raises(ConfigError, match="classes that are read is 3: it must be 2"):
        Conditions(("a", "b"), worded.reader)
