"""The raster prior: its first logits, its dropout, and what each kind of positions can tell apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import RasterConfig, RasterPrior
from bisquit.priors.causal import places_around
from bisquit.priors.raster import axial_angles
from bisquit.transformer import TransformerConfig, rotate

TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)


def uneven_tokens(batch: int = 2) -> Tensor:
    return torch.randint(8, (batch, 2, 3), generator=torch.Generator().manual_seed(1))


def test_a_head_of_zeros_is_uniform(make_prior):
    prior = make_prior(bits=5)
    with torch.no_grad():
        prior.head.weight.zero_()
        prior.head.bias.zero_()
    assert prior.loss(uneven_tokens()).item() == pytest.approx(math.log(32), rel=1e-6)
    assert prior.token_bits(uneven_tokens()).allclose(torch.tensor(5.0))


def test_a_new_prior_is_nearly_uniform():
    torch.manual_seed(0)
    prior = RasterPrior(RasterConfig(), bits=10, grid=(2, 3))
    assert prior.loss(uneven_tokens()).item() == pytest.approx(math.log(1024), rel=0.02)


def test_from_bits_tokens_are_as_far_apart_as_their_bits():
    torch.manual_seed(0)
    config = RasterConfig(transformer=TransformerConfig(width=256, n_layers=1), neighbours=2)
    prior = RasterPrior(config, bits=6, grid=(2, 3))
    prior.start_from_bits()
    codes = torch.arange(64)
    differing = (((codes.unsqueeze(0) ^ codes.unsqueeze(1)).unsqueeze(2) >> torch.arange(6)) & 1).sum(dim=2)
    for table in (prior.embedding.weight, prior.head.weight, *prior.neighbours.parameters()):
        apart = torch.cdist(table[:64], table[:64]).square().detach()
        for bits in range(1, 7):
            assert apart[differing == bits].mean().item() == pytest.approx(256 * 4 * bits * 0.1**2 / 6, rel=0.15)
        assert table[:64].std().item() == pytest.approx(0.1, rel=0.1)
    assert not any(table[64].any() for table in prior.neighbours.parameters())
    assert prior.loss(uneven_tokens()).item() == pytest.approx(math.log(64), rel=0.5)


def test_dropout_acts_in_training_only(make_prior):
    prior, tokens = make_prior(dropout=0.5), uneven_tokens()
    assert torch.equal(prior.loss(tokens), prior.loss(tokens))
    assert torch.equal(prior.loss(tokens), make_prior(dropout=0.0).loss(tokens))
    prior.train()
    assert not torch.equal(prior.loss(tokens), prior.loss(tokens))


def test_the_start_is_no_token(make_prior):
    prior = make_prior()
    before = prior.next_logits(prior.start(1), None)
    with torch.no_grad():
        prior.embedding.weight.add_(1.0)
    assert torch.equal(prior.next_logits(prior.start(1), None), before)
    with torch.no_grad():
        prior.start_vector.mul_(-1)
    assert not torch.equal(prior.next_logits(prior.start(1), None), before)


@pytest.mark.parametrize(
    ("positions", "tells_places"), [("none", False), ("rotary", False), ("learned", True), ("row-column", True)]
)
def test_only_absolute_positions_tell_places_apart_after_tokens_that_are_all_alike(
    make_prior, positions: str, tells_places: bool
):
    prior = make_prior(positions=positions)
    with torch.no_grad():
        prior.embedding.weight[0] = prior.start_vector
    logits = prior.logits(torch.zeros(1, 2, 3, dtype=torch.int64))[0]
    differs = [not torch.allclose(logits[0], other, atol=1e-4) for other in logits[1:]]
    assert differs == [tells_places] * 5


@pytest.mark.parametrize(("positions", "tells_order"), [("none", False), ("rotary", True)])
def test_rotation_tells_in_which_order_tokens_came(positions: Any, tells_order: bool):
    """A layer without positions sees the tokens before a step as a bag."""
    torch.manual_seed(0)
    prior = RasterPrior(RasterConfig(transformer=TINY, positions=positions), 3, (2, 3)).eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(std=0.5)
    pair = torch.tensor([[[1, 2, 5], [0, 0, 0]], [[2, 1, 5], [0, 0, 0]]])
    logits = prior.logits(pair)[:, 3]
    assert torch.allclose(logits[0], logits[1], atol=1e-5) is not tells_order


def test_axial_angles_depend_on_row_and_column_apart():
    angles = axial_angles((3, 4), head_width=8).view(3, 4, 4)
    assert torch.equal(angles[..., :2], angles[:, :1, :2].expand(3, 4, 2))  # the same in all columns
    assert torch.equal(angles[..., 2:], angles[:1, :, 2:].expand(3, 4, 2))  # the same in all rows
    assert angles[2, 3].tolist() == pytest.approx([2.0, 0.2, 3.0, 0.3])


def test_rotated_products_depend_on_how_many_rows_and_columns_lie_between():
    angles = axial_angles((4, 4), head_width=8).view(4, 4, 4).double()
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def product(a: tuple[int, int], b: tuple[int, int]) -> float:
        return (rotate(q, angles[a][None]) * rotate(k, angles[b][None])).sum().item()

    assert product((3, 2), (1, 1)) == pytest.approx(product((2, 3), (0, 2)), rel=1e-6)
    assert product((3, 2), (1, 1)) != pytest.approx(product((3, 2), (1, 2)), rel=1e-3)


@pytest.mark.parametrize("bits", [0, 19, 33])
def test_more_bits_than_a_softmax_takes_are_refused(bits: int):
    with pytest.raises(ConfigError, match=f"^bits is {bits}: it must be between 1 and 18"):
        RasterPrior(RasterConfig(transformer=TINY), bits, (2, 3))


def test_a_grid_without_a_row_is_refused():
    with pytest.raises(ConfigError, match=r"^grid is \(0, 3\)"):
        RasterPrior(RasterConfig(transformer=TINY), 3, (0, 3))


def test_rotary_positions_need_heads_that_split_in_four():
    with pytest.raises(ConfigError, match="multiple of 4 channels, not 3"):
        RasterConfig(transformer=TransformerConfig(width=6, n_heads=2), positions="rotary")


def test_unknown_positions_are_refused():
    data: dict[str, Any] = {"positions": "sinus"}
    with pytest.raises(ConfigError, match="positions"):
        RasterConfig.from_dict(data)


@pytest.mark.parametrize("positions", ["none", "learned", "row-column", "rotary"])
def test_a_state_that_is_full_takes_no_further_step(make_prior, positions: str):
    """Silence here would give logits that ignore the last token."""
    prior, token = make_prior(positions=positions), torch.zeros(1, dtype=torch.int64)
    state = prior.start(1)
    for step in range(prior.length):
        prior.next_logits(state, token if step else None)
    with pytest.raises(ShapeError, match="6 tokens, and all are there"):
        prior.next_logits(state, token)


def test_neighbours_are_above_and_inside_of_the_grid():
    none = 12
    around = places_around((4, 3), neighbours=4).view(4, 3, 4).tolist()  # above, left of it, right of it, next above
    assert around[0] == [[none] * 4] * 3
    assert around[1] == [[0, none, 1, none], [1, 0, 2, none], [2, 1, none, none]]
    assert around[3] == [[6, none, 7, 3], [7, 6, 8, 4], [8, 7, none, 5]]


@pytest.mark.parametrize("neighbours", [1, 2, 3, 4])
def test_neighbours_reach_the_input_and_no_other_token_does(neighbours):
    """Without layers' attention in the way: the input of a step is all that its logits hang on."""
    config = RasterConfig(transformer=TransformerConfig(width=8, n_layers=1, n_heads=1, feed_forward=4))
    prior = RasterPrior(config.replace(positions="none", neighbours=neighbours), 3, (3, 4)).eval()
    torch.nn.init.zeros_(prior.transformer.blocks[0].attention.out.weight)
    step, tokens = 9, torch.zeros(1, 3, 4, dtype=torch.int64)
    before, changed = prior.logits_at(tokens, step), set()
    for place in range(12):
        others = tokens.clone()
        others.view(-1)[place] = 5
        if not torch.equal(prior.logits_at(others, step), before):
            changed.add(place)
    assert changed == {8, *prior.around[step].tolist()}


def test_neighbours_must_be_known_ones():
    with pytest.raises(ConfigError, match="neighbours is 5"):
        RasterConfig(neighbours=5)
