"""The settings of a training: how its learning rate goes, and what is out of range."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from bisquit.errors import ConfigError
from bisquit.presets import PRESETS
from bisquit.priors import KINDS, build_prior, starts_from_bits
from bisquit.training import PriorRecipe, TokenizerRecipe, TrainingConfig


def rates(total_steps: int, **settings: object) -> list[float]:
    return [TrainingConfig(**settings).rate_factor(step, total_steps) for step in range(total_steps)]


def test_a_constant_rate_is_the_whole_from_the_first_step():
    assert rates(5) == [1.0] * 5


def test_the_rate_grows_evenly_from_above_zero_to_the_whole():
    assert rates(6, warmup_steps=3) == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 1])


def test_a_cosine_falls_from_the_whole_to_a_hundredth():
    factors = rates(100, schedule="cosine")
    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.505)
    assert factors[-1] == pytest.approx(0.01, abs=1e-3)
    assert all(later < earlier for earlier, later in pairwise(factors))
    assert TrainingConfig(schedule="cosine").rate_factor(100, 100) == pytest.approx(0.01)


def test_a_cosine_starts_where_the_warm_up_ends():
    factors = rates(110, schedule="cosine", warmup_steps=10)
    assert factors[10:] == rates(100, schedule="cosine")
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])


@pytest.mark.parametrize("total_steps", [1, 2, 10])
def test_a_warm_up_longer_than_the_run_keeps_the_rate_in_range(total_steps: int):
    factors = rates(total_steps + 5, schedule="cosine", warmup_steps=10)[: total_steps + 5]
    assert all(0 < factor <= 1 for factor in factors)


def test_the_rate_stays_in_range_beyond_the_last_step():
    assert TrainingConfig(schedule="cosine").rate_factor(1000, 100) == pytest.approx(0.01)


@pytest.mark.parametrize("recipe", [TokenizerRecipe(), PriorRecipe()], ids=["tokenizer", "prior"])
def test_a_recipe_survives_json(recipe: TokenizerRecipe | PriorRecipe):
    changed = recipe.replace(training=TrainingConfig(snapshot_epochs=(1, 3), schedule="cosine"))
    assert type(recipe).from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -0.1),
        ("warmup_steps", -1),
        ("gradient_clip", -1.0),
        ("ema_decay", 1.0),
        ("early_stopping_epochs", -1),
        ("checkpoint_minutes", 0.0),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        TrainingConfig(**{field: value})


def test_every_setting_explains_itself():
    assert set(TrainingConfig.descriptions()) == set(TrainingConfig().to_dict())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_has_a_prior_of_every_kind(preset: str, kind: str):
    """Whatever of its recipe is for the preset's own kind alone is left out."""
    recipe = PRESETS[preset].prior.of_kind(kind)
    assert recipe.prior.kind == kind
    assert recipe.prior.transformer == PRESETS[preset].prior.prior.transformer
    if recipe.from_bits:
        build_prior(recipe.prior, 4, (2, 3)).start_from_bits()


def test_neighbours_are_as_many_as_a_kind_takes():
    recipe = PRESETS["edit"].prior
    kinds = ("any-order", "masked", "raster", "parts")
    assert [recipe.of_kind(kind).prior.neighbours for kind in kinds] == [12, 12, 4, 4]


def test_a_kind_that_cannot_start_from_bits_starts_without():
    assert PRESETS["small"].prior.of_kind("parts").from_bits
    assert not PRESETS["small"].prior.of_kind("flow").from_bits
    assert starts_from_bits("raster")
    assert not starts_from_bits("pyramid")
