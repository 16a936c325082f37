"""The any-order prior: the orders that it learns from, the paths that it takes, and what it knows at each step."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import AnyOrderConfig, AnyOrderPrior
from bisquit.priors.anyorder import draw_orders
from bisquit.priors.base import to_grid, to_steps
from bisquit.priors.causal import AROUND, places_around
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
GRID = (3, 4)


def made(neighbours: int = 8, bits: int = 3, grid: tuple[int, int] = GRID, condition_size: int = 0) -> AnyOrderPrior:
    """A prior of random weights, large enough for each to matter."""
    config = AnyOrderConfig(transformer=TINY, neighbours=neighbours, condition_size=condition_size)
    prior = AnyOrderPrior(config, bits, grid)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return prior.eval()


def tokens_of(batch: int, bits: int = 3, grid: tuple[int, int] = GRID) -> Tensor:
    return torch.randint(2**bits, (batch, *grid), generator=torch.Generator().manual_seed(1))


def orders_of(batch: int, grid: tuple[int, int] = GRID, scattered: float = 0.5) -> Tensor:
    return draw_orders(batch, grid, scattered, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (3, 4), (20, 30)], ids=str)
@pytest.mark.parametrize("scattered", [0.0, 0.5, 1.0])
def test_an_order_has_each_place_once(grid: tuple[int, int], scattered: float):
    order = orders_of(50, grid, scattered)
    assert order.dtype == torch.int64
    assert (order.sort(dim=1).values == torch.arange(grid[0] * grid[1])).all()


def test_orders_to_learn_from_are_of_every_kind():
    order = draw_orders(2000, (6, 8), 0.5, torch.Generator().manual_seed(0))
    steps_back = (order.diff(dim=1) < 0).sum(dim=1)  # none in raster order, one where the rest is in rows, else many
    assert (steps_back == 0).float().mean() < 0.05
    assert 0.35 < (steps_back == 1).float().mean() < 0.65
    assert (steps_back > 5).float().mean() > 0.25
    assert (order[:, 0] == 0).float().mean() < 0.95
    assert len(order[:, -1].unique()) == 48


def test_what_is_known_is_within_or_without_a_rectangle_unless_it_is_scattered():
    order = draw_orders(400, (6, 8), 0.0, torch.Generator().manual_seed(0))
    in_rows = (order.diff(dim=1) < 0).sum(dim=1) == 1
    kinds = set()
    for row in order[in_rows]:
        first = int((row.diff() < 0).nonzero()[0]) + 1
        known = torch.zeros(48, dtype=torch.bool)
        known[row[:first]] = True
        for kind, within in (("within", known), ("without", ~known)):
            rows, columns = within.view(6, 8).nonzero().unbind(1)
            if len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1):
                kinds.add(kind)
                break
        else:
            pytest.fail(f"neither is a rectangle: {known.view(6, 8)}")
    assert kinds == {"within", "without"}


def test_orders_are_drawn_anew_in_training_and_not_in_evaluation():
    prior, tokens = made(), tokens_of(4)
    assert prior.loss(tokens).item() == prior.loss(tokens).item()
    prior.train()
    assert prior.loss(tokens).item() != prior.loss(tokens).item()


def test_what_is_known_comes_first_and_both_parts_are_in_rows():
    known = torch.rand(5, *GRID, generator=torch.Generator().manual_seed(3)) < 0.5
    path = made().after(known)
    assert path.order is not None
    for picture, order in zip(known.flatten(1), path.order, strict=True):
        count = int(picture.sum())
        assert order[:count].tolist() == picture.nonzero().flatten().tolist()
        assert order[count:].tolist() == (~picture).nonzero().flatten().tolist()


def test_tokens_go_to_steps_and_back():
    path, tokens = made().along(orders_of(4)), tokens_of(4)
    steps = to_steps(tokens, path)
    assert not torch.equal(steps, tokens.flatten(1))
    assert torch.equal(to_grid(steps, path, GRID), tokens)
    for picture, order, row in zip(tokens.flatten(1), path.order, steps, strict=True):
        assert row.tolist() == [int(picture[place]) for place in order]


@pytest.mark.parametrize("neighbours", [0, 4, 12])
def test_along_raster_order_it_goes_its_own_way(neighbours: int):
    prior, tokens = made(neighbours), tokens_of(3)
    path = prior.along(torch.arange(12).expand(3, -1))
    torch.testing.assert_close(prior.logits(tokens, path), prior.logits(tokens))
    assert torch.equal(path.around[0], prior.around)


@pytest.mark.parametrize("neighbours", [0, 4, 12])
def test_cached_logits_along_any_order_equal_those_of_a_full_pass(neighbours: int):
    prior, tokens = made(neighbours), tokens_of(4)
    path = prior.along(orders_of(4))
    full, state, last = prior.logits(tokens, path), prior.start(4, path), None
    for step in range(prior.length):
        torch.testing.assert_close(prior.next_logits(state, last), full[:, step], rtol=0, atol=1e-5)
        torch.testing.assert_close(prior.logits_at(tokens, step, path), full[:, step], rtol=0, atol=1e-5)
        last = to_steps(tokens, path)[:, step]


@pytest.mark.parametrize("neighbours", [0, 12])
def test_along_any_order_only_steps_before_are_seen(neighbours: int):
    prior, tokens = made(neighbours), tokens_of(1)
    order = orders_of(1, scattered=1.0)
    path = prior.along(order)
    for step, place in enumerate(order[0].tolist()):
        other = tokens.clone()
        other.view(-1)[place] = (other.view(-1)[place] + 1) % 8
        differs = (prior.logits(tokens, path) != prior.logits(other, path)).any(dim=-1)[0]
        assert not differs[: step + 1].any()
        assert differs[step + 1 :].all()


@pytest.mark.parametrize("seed", range(3))
def test_along_any_order_the_chances_of_all_pictures_sum_to_one(seed: int):
    grid = (2, 2)
    prior = made(bits=2, grid=grid).double()
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    every_picture = torch.tensor(list(itertools.product(range(4), repeat=4))).view(-1, *grid)
    bits = prior.token_bits(every_picture, prior.along(order.expand(len(every_picture), -1)))
    assert (-bits.double().sum(dim=(1, 2))).exp2().sum().item() == pytest.approx(1, abs=1e-5)


def test_bits_lie_at_the_places_of_their_tokens():
    prior, tokens = made(), tokens_of(2)
    path = prior.along(orders_of(2))
    assert path.order is not None
    bits, logits = prior.token_bits(tokens, path), prior.logits(tokens, path)
    for step in range(12):
        place = path.order[1, step]
        token = tokens[1].flatten()[place]
        assert bits[1].flatten()[place].item() == pytest.approx(
            -logits[1, step].log_softmax(0)[token].item() / 0.6931471805599453, rel=1e-5
        )


def test_neighbours_are_the_tokens_around_a_place_that_are_known_by_then():
    prior = made(neighbours=12)
    order = orders_of(1, scattered=1.0)
    around = prior.along(order).around[0]
    step_of = {place: step for step, place in enumerate(order[0].tolist())}
    for step, place in enumerate(order[0].tolist()):
        row, column = divmod(place, 4)
        for (down, right), found in zip(AROUND, around[step].tolist(), strict=True):
            y, x = row + down, column + right
            inside = 0 <= y < 3 and 0 <= x < 4
            there = step_of[y * 4 + x] if inside else 12
            assert found == (there if there < step else 12)


def test_places_around_are_on_the_grid_or_none():
    around = places_around((2, 3), 7)
    assert around.tolist()[4] == [1, 0, 2, 6, 3, 5, 6]
    assert around.tolist()[0] == [6, 6, 6, 6, 6, 1, 3]


def test_it_is_told_of_pictures_in_any_order():
    prior, tokens = made(condition_size=3), tokens_of(2)
    path = prior.along(orders_of(2))
    told = prior.shown(path, torch.eye(3)[:2])
    assert (prior.logits(tokens, told) != prior.logits(tokens, path)).any(dim=2).all()
    assert torch.equal(told.order, path.order)


@pytest.mark.parametrize(
    "order",
    [
        torch.zeros(2, 12, dtype=torch.int64),
        torch.arange(11).expand(2, -1),
        torch.arange(12),
        torch.arange(1, 13)[None],
    ],
    ids=["repeated", "short", "flat", "outside"],
)
def test_an_order_that_is_none_is_refused(order: Tensor):
    with pytest.raises(ShapeError, match="each place once"):
        made().along(order)


@pytest.mark.parametrize(
    "known", [torch.zeros(2, 4, 3, dtype=torch.bool), torch.zeros(2, 3, 4), torch.zeros(3, 4, dtype=torch.bool)]
)
def test_what_is_known_must_be_said_of_its_own_grid(known: Tensor):
    with pytest.raises(ShapeError, match="what is known"):
        made().after(known)


@pytest.mark.parametrize("fields", [{"neighbours": 13}, {"neighbours": -1}, {"scattered": 1.5}, {"condition_size": -1}])
def test_settings_out_of_their_range_are_refused(fields: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        AnyOrderConfig(transformer=TINY, **fields)
