"""The masked prior: what each masked place sees, how masks are drawn, and that its loss is the bound that it says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import AnyOrderConfig, AnyOrderPrior, MaskedConfig, MaskedPrior, SequentialPrior
from bisquit.priors.masked import draw_masks
from bisquit.training import TrainingConfig
from bisquit.training.modules import PriorModule
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
GRID = (3, 4)


def made(bits: int = 3, grid: tuple[int, int] = GRID, **fields: object) -> MaskedPrior:
    """A prior of random weights, large enough for each to matter."""
    prior = MaskedPrior(MaskedConfig(transformer=TINY, **fields), bits, grid)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return prior.eval()


def tokens_of(batch: int, bits: int = 3, grid: tuple[int, int] = GRID) -> Tensor:
    return torch.randint(2**bits, (batch, *grid), generator=torch.Generator().manual_seed(1))


def known_of(batch: int) -> Tensor:
    """Half of the places, others in each picture, the first of the first one among them."""
    known = torch.rand(batch, *GRID, generator=torch.Generator().manual_seed(2)) < 0.5
    known[0, 0, 0] = True
    return known


def masks_of(length: int) -> Iterator[tuple[int, ...]]:
    """Each set of places but the empty one."""
    for size in range(1, length + 1):
        yield from itertools.combinations(range(length), size)


def mask_of(places: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    mask = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    mask[list(places)] = True
    return mask.view(1, *grid)


@pytest.mark.parametrize("neighbours", [0, 12])
def test_each_place_sees_all_that_is_known_and_nothing_else(neighbours: int):
    prior, tokens, known = made(neighbours=neighbours), tokens_of(1), known_of(1)
    logits = prior.logits(tokens, known)
    for place in range(12):
        other = tokens.clone()
        other.view(-1)[place] = (other.view(-1)[place] + 1) % 8
        differs = (prior.logits(other, known) != logits).any(dim=2)[0]
        assert differs.all() if known.view(-1)[place] else not differs.any(), place


def test_not_to_know_a_token_is_like_none_of_the_codebook():
    prior, known = made(), known_of(1)
    tokens = tokens_of(1).expand(8, -1, -1).clone()
    tokens[:, 0, 0] = torch.arange(8)
    unknown = known.clone()
    unknown[0, 0, 0] = False
    without = prior.logits(tokens[:1], unknown)
    assert (prior.logits(tokens, known.expand(8, -1, -1)) != without).any(dim=2).all()


def test_neighbours_are_those_around_a_place_that_are_known():
    """With nothing but neighbours in its input, a place far from what is known knows nothing of it."""
    prior = made(grid=(1, 6), neighbours=6)  # of a single row, the one to the left and the one to the right
    prior.transformer.forward = lambda x, causal: x
    with torch.no_grad():
        prior.embedding.weight.zero_()
    tokens, known = torch.full((1, 1, 6), 5), torch.tensor([[[False, False, True, False, False, False]]])
    nothing = prior.logits(tokens, torch.zeros_like(known))
    differs = (prior.logits(tokens, known) - nothing).abs().amax(dim=2)[0] > 1e-6
    assert differs.tolist() == [False, True, True, True, False, False]  # 2 is no longer masked itself


@pytest.mark.parametrize("neighbours", [0, 12])
def test_the_logits_of_what_is_masked_are_those_of_all_places_there(neighbours: int):
    prior, tokens, known = made(neighbours=neighbours), tokens_of(3), known_of(3)
    known[1] = True
    torch.testing.assert_close(prior.masked_logits(tokens, known), prior.logits(tokens, known)[~known.flatten(1)])


def test_what_is_said_of_a_picture_is_added_alike_in_any_batch():
    transformer = TransformerConfig(width=256, n_layers=1, n_heads=2, feed_forward=12)
    prior = MaskedPrior(MaskedConfig(transformer=transformer, condition_size=404), 3, (2, 3)).eval()
    prior.transformer.forward = lambda x, causal: x
    prior.head = nn.Identity()  # "logits" are the transformer's input now
    tokens, known = tokens_of(65, grid=(2, 3)), torch.zeros(65, 2, 3, dtype=torch.bool)
    condition = torch.randn(65, 404, generator=torch.Generator().manual_seed(2))
    together = prior.logits(tokens, known, condition)
    for number in (0, 30, 64):
        rows = slice(number, number + 1)
        assert torch.equal(prior.logits(tokens[rows], known[rows], condition[rows]), together[rows])


@pytest.mark.parametrize(
    "known",
    [
        torch.zeros(2, 4, 3, dtype=torch.bool),
        torch.zeros(1, 3, 4, dtype=torch.bool),
        torch.zeros(3, 4, dtype=torch.bool),
        torch.zeros(2, 3, 4),
    ],
    ids=["turned", "another batch", "no batch", "no booleans"],
)
def test_what_is_known_must_be_said_of_the_same_pictures(known: Tensor):
    with pytest.raises(ShapeError, match=r"what is known is .*: it must be bool \(2, 3, 4\)"):
        made().logits(tokens_of(2), known)


def test_it_has_no_exact_likelihood_and_is_not_taken_for_one_that_has():
    assert not isinstance(made(), SequentialPrior)


def test_masks_are_drawn_anew_in_training_and_not_in_evaluation():
    prior, tokens = made(), tokens_of(4)
    assert prior.loss(tokens).item() == prior.loss(tokens).item()
    before = torch.get_rng_state()
    prior.loss(tokens)
    assert torch.equal(torch.get_rng_state(), before)
    prior.train()
    assert prior.loss(tokens).item() != prior.loss(tokens).item()


def test_in_evaluation_masks_are_even_whatever_it_learns_from():
    even, cosine = made(), made(masking="cosine")
    tokens = tokens_of(8)
    assert even.loss(tokens).item() == cosine.loss(tokens).item()
    losses = []
    for prior in (even.train(), cosine.train()):
        torch.manual_seed(0)
        losses.append(prior.loss(tokens).item())
    assert losses[0] != losses[1]


@pytest.mark.parametrize("masking", ["uniform", "cosine"])
def test_every_mask_has_one_place_at_least(masking: str):
    for length in (1, 2, 7):
        count = draw_masks(500, length, masking, torch.Generator().manual_seed(0)).sum(dim=1)
        assert (count >= 1).all()
        assert set(count.tolist()) == set(range(1, length + 1))


def test_each_number_of_masked_places_is_as_likely_and_so_is_each_place():
    masks = draw_masks(6000, 6, "uniform", torch.Generator().manual_seed(0))
    assert masks.sum(dim=1).bincount(minlength=7)[1:].tolist() == pytest.approx([1000] * 6, abs=2)
    alone = masks[masks.sum(dim=1) == 1]
    assert alone.sum(dim=0).tolist() == pytest.approx([len(alone) / 6] * 6, abs=50)


def test_a_single_picture_may_have_any_share_masked():
    generator = torch.Generator().manual_seed(0)
    counts = torch.cat([draw_masks(1, 6, "uniform", generator).sum(dim=1) for _ in range(1200)])
    assert counts.bincount(minlength=7)[1:].tolist() == pytest.approx([200] * 6, abs=50)


def test_cosine_masks_are_those_of_the_rounds_of_sampling():
    share = draw_masks(4000, 1000, "cosine", torch.Generator().manual_seed(0)).float().mean(dim=1)
    wanted = (torch.linspace(0, math.pi / 2, 4000)).cos()
    torch.testing.assert_close(share.sort(descending=True).values, wanted, rtol=0, atol=2e-3)
    assert share.mean().item() == pytest.approx(2 / math.pi, abs=1e-3)


def test_the_shares_of_a_batch_are_spread_over_the_whole_range():
    for seed in range(20):
        count = draw_masks(8, 800, "uniform", torch.Generator().manual_seed(seed)).sum(dim=1)
        gaps = count.sort().values.diff()
        assert gaps.max() <= 201  # two parts of an eighth
        assert count.min() <= 200
        assert count.max() >= 600


def test_the_loss_of_a_picture_is_the_mean_over_its_masked_places():
    """A prior that always says 1 with a chance of 3/4, of a picture with a 0 and a 1."""
    prior = made(bits=1, grid=(1, 2))
    with torch.no_grad():
        prior.head.weight.zero_()
        prior.head.bias.copy_(torch.tensor([0.25, 0.75]).log())
    tokens = torch.tensor([[[0, 1]]]).expand(3, -1, -1)
    masked = torch.tensor([[[True, False]], [[False, True]], [[True, True]]])
    zero, one = math.log(4), math.log(4 / 3)
    assert prior.bound(tokens, masked).tolist() == pytest.approx([zero, one, (zero + one) / 2])
    assert prior.loss(torch.zeros(2, 1, 2, dtype=torch.int64)).item() == pytest.approx(zero)


def nats_of_order(prior: MaskedPrior, tokens: Tensor, order: tuple[int, ...]) -> Tensor:
    """What pictures (B, h, w) cost, in nats (B,), painted token by token in an order of the places."""
    nats, known = torch.zeros(len(tokens), dtype=torch.float64), torch.zeros_like(tokens, dtype=torch.bool)
    for place in order:
        chances = prior.logits(tokens, known).log_softmax(dim=2)[:, place]
        nats -= chances.gather(1, tokens.flatten(1)[:, place : place + 1])[:, 0]
        known.view(len(tokens), -1)[:, place] = True
    return nats


@torch.no_grad()
@pytest.mark.parametrize("neighbours", [0, 12])
def test_the_loss_is_the_mean_over_all_orders_and_bounds_the_likelihood(neighbours: int):
    grid, length = (2, 2), 4
    prior = made(bits=1, grid=grid, neighbours=neighbours).double()
    every_picture = torch.tensor(list(itertools.product(range(2), repeat=length))).view(-1, *grid)
    by_order = torch.stack(
        [nats_of_order(prior, every_picture, order) for order in itertools.permutations(range(length))]
    )
    torch.testing.assert_close((-by_order).exp().sum(dim=1), torch.ones(24, dtype=torch.float64))
    likelihood_nats = -(-by_order).exp().mean(dim=0).log()  # of painting in an order that is drawn

    bounds = torch.zeros(16, dtype=torch.float64)
    for places in masks_of(length):
        share_of_draws = 1 / (length * math.comb(length, len(places)))
        masked = mask_of(places, grid).expand(16, -1, -1)
        bounds += share_of_draws * prior.bound(every_picture, masked).double() * length
    torch.testing.assert_close(bounds, by_order.mean(dim=0), rtol=1e-6, atol=1e-6)
    assert (bounds > likelihood_nats).all()
    assert (bounds - likelihood_nats).max() > 1e-3  # orders differ a little, so that it is no equality


@torch.no_grad()
def test_the_loss_that_is_drawn_has_the_bound_as_its_mean():
    grid, length = (1, 3), 3
    prior, tokens = made(bits=1, grid=grid), torch.tensor([[[1, 0, 1]]])
    wanted = sum(
        prior.bound(tokens, mask_of(places, grid)).item() / (length * math.comb(length, len(places)))
        for places in masks_of(length)
    )
    many = tokens.expand(6000, -1, -1)
    assert prior.loss(many).item() == pytest.approx(wanted, abs=0.02)


def test_it_grows_from_a_causal_prior_over_tokens_of_fewer_bits():
    small, grown = AnyOrderPrior(AnyOrderConfig(transformer=TINY, neighbours=4), 2, GRID), made(bits=3, neighbours=12)
    assert grown.grow_from(small)
    low_bits = torch.arange(8) % 4
    assert torch.equal(grown.head.weight, small.head.weight[low_bits])
    for ours, theirs in zip(grown.neighbours, small.neighbours, strict=False):
        assert torch.equal(ours.weight[:8], theirs.weight[:4][low_bits])
        assert torch.equal(ours.weight[8], theirs.weight[4])


def test_it_is_trained_as_every_prior_is():
    prior, tokens = made(), tokens_of(8)
    module = PriorModule(prior, TrainingConfig(learning_rate=0.02))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=10,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(tokens, batch_size=4)
    before = prior.loss(tokens).item()
    trainer.fit(module.train(), loader, loader)
    assert trainer.callback_metrics["valid/loss"].item() < before
    assert prior.eval().loss(tokens).item() < before


@pytest.mark.parametrize(
    "fields", [{"neighbours": 13}, {"neighbours": -1}, {"condition_size": -1}, {"condition_size": 65537}]
)
def test_settings_out_of_their_range_are_refused(fields: dict[str, int]):
    with pytest.raises(ConfigError, match=f"^{next(iter(fields))} is "):
        MaskedConfig(transformer=TINY, **fields)


def test_a_masking_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="masking"):
        MaskedConfig.from_dict(MaskedConfig().to_dict() | {"masking": "linear"})


@pytest.mark.parametrize(
    ("bits", "grid", "named"), [(0, (2, 3), "bits"), (19, (2, 3), "bits"), (3, (0, 3), "grid")], ids=str
)
def test_tokens_and_grids_that_it_cannot_be_over_are_refused(bits: int, grid: tuple[int, int], named: str):
    with pytest.raises(ConfigError, match=f"^{named} is "):
        MaskedPrior(MaskedConfig(transformer=TINY), bits, grid)
