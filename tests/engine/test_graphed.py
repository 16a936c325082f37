"""The graphed prior: its static step gives the raster prior's logits and pictures, and is one that a graph can hold.

Without a GPU, all but the capture itself is tested: the step that would be captured, run eagerly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bisquit import transformer
from bisquit.engine import graphed, paint
from bisquit.engine.graphed import GraphedPrior, GraphedState
from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.priors import RasterPrior
from bisquit.sampling import SamplingConfig, sample
from bisquit.transformer import FIRST_REACH, KeyValueCache, StaticCache

POSITIONS = ("none", "learned", "row-column", "rotary")
OVER_TWO_REACHES = (9, 30)  # 270 tokens: attention reaches 128, 256, then 272
SETTINGS = [SamplingConfig(), SamplingConfig(temperature=0.0), SamplingConfig(temperature=0.8, top_k=5, top_p=0.9)]

FORMS = [{"positions": positions} for positions in POSITIONS] + [{"neighbours": n} for n in (1, 3, 4)]

every_form = pytest.mark.parametrize("form", FORMS, ids=str)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: CUDA graphs are captured on one only"
)


def random_tokens(batch: int, prior: RasterPrior, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(prior.codebook_size, (batch, *prior.grid), generator=generator)


def steps(prior: GraphedPrior, state: GraphedState, tokens: Tensor) -> Tensor:
    """The logits of all steps, one by one, as `logits` would return them."""
    before = [None, *tokens.flatten(1).T[:-1]]
    return torch.stack([prior.next_logits(state, last) for last in before], dim=1)


def equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def relative_error(logits: Tensor, wanted: Tensor) -> float:
    return ((logits - wanted).std() / wanted.std()).item()


@every_form
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 1), (1, 4), OVER_TWO_REACHES], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_steps_give_the_logits_of_a_full_pass(make_prior, form: dict[str, Any], grid: tuple[int, int], batch: int):
    prior = make_prior(grid=grid, **form)
    tokens = random_tokens(batch, prior)
    ours = GraphedPrior(prior, torch.float32)
    logits = steps(ours, ours.start(batch), tokens)
    assert logits.dtype == torch.float32
    equal(logits, prior.logits(tokens))
    equal(ours.logits(tokens), prior.logits(tokens))


def test_a_reach_starts_short_doubles_and_ends_with_the_picture(make_prior):
    prior = GraphedPrior(make_prior(grid=OVER_TWO_REACHES), torch.float32)
    state = prior.start(1)
    steps(prior, state, torch.zeros(1, *OVER_TWO_REACHES, dtype=torch.int64))
    assert list(state.buffers.replays) == [FIRST_REACH, 2 * FIRST_REACH, 272]


@every_form
def test_a_state_starts_empty_in_the_buffers_of_one_that_is_gone(make_prior, form: dict[str, Any]):
    prior = make_prior(**form)
    ours = GraphedPrior(prior, torch.float32)
    state = ours.start(3)
    buffers = state.buffers
    steps(ours, state, random_tokens(3, prior))
    del state
    another = ours.start(3)
    assert another.buffers is buffers
    tokens = random_tokens(3, prior, seed=2)
    equal(steps(ours, another, tokens), prior.logits(tokens))


def test_a_state_given_up_half_way_leaves_nothing_behind(make_prior):
    prior = make_prior()
    ours = GraphedPrior(prior, torch.float32)
    state = ours.start(1)
    ours.next_logits(state, None)
    state.buffers.cache.values.fill_(torch.nan)
    del state
    tokens = random_tokens(1, prior)
    equal(steps(ours, ours.start(1), tokens), prior.logits(tokens))


@pytest.mark.parametrize("batches", [(1, 3), (2, 2)], ids=str)
def test_two_states_at_once_do_not_mix(make_prior, batches: tuple[int, int]):
    prior = make_prior()
    ours = GraphedPrior(prior, torch.float32)
    states = [ours.start(batch) for batch in batches]
    tokens = [random_tokens(batch, prior, seed) for seed, batch in enumerate(batches)]
    for step in range(prior.length):
        for state, given in zip(states, tokens, strict=True):
            last = given.flatten(1)[:, step - 1] if step else None
            equal(ours.next_logits(state, last), prior.logits(given)[:, step])


def test_logits_once_given_stay_as_they_are(make_prior):
    ours = GraphedPrior(make_prior(), torch.float32)
    state = ours.start(1)
    first = ours.next_logits(state, None)
    kept = first.clone()
    ours.next_logits(state, torch.tensor([3]))
    assert torch.equal(first, kept)


def test_a_full_state_is_refused_as_a_full_cache_is(make_prior):
    prior = make_prior(positions="none")
    ours = GraphedPrior(prior, torch.float32)
    tokens, last = random_tokens(2, prior), torch.zeros(2, dtype=torch.int64)
    state, cache = ours.start(2), prior.start(2)
    steps(ours, state, tokens)
    for step in range(prior.length):
        prior.next_logits(cache, last if step else None)
    with pytest.raises(ShapeError, match="6 tokens, and all are there"):
        prior.next_logits(cache, last)
    with pytest.raises(ShapeError, match="6 of 6 filled"):
        ours.next_logits(state, last)


def test_a_step_is_given_the_tokens_before_it_and_nothing_else(make_prior):
    ours = GraphedPrior(make_prior(), torch.float32)
    state = ours.start(2)
    with pytest.raises(ShapeError, match=r"^step 0 was given tokens \(2,\): it takes None$"):
        ours.next_logits(state, torch.zeros(2, dtype=torch.int64))
    ours.next_logits(state, None)
    with pytest.raises(ShapeError, match=r"^step 1 was given no tokens: it takes those before it, \(2,\)$"):
        ours.next_logits(state, None)
    with pytest.raises(ShapeError, match=r"^step 1 was given tokens \(1,\): it takes those before it, \(2,\)$"):
        ours.next_logits(state, torch.zeros(1, dtype=torch.int64))


def test_several_steps_at_once_are_refused_by_a_static_cache(make_prior):
    prior = make_prior()
    cache = StaticCache(prior.config.transformer, batch=1, capacity=6, like=prior.start_vector)
    cache.prepare_step()
    with pytest.raises(ShapeError, match="one at a time"):
        prior.transformer(torch.zeros(1, 2, 8), causal=True, cache=cache)


def test_the_static_cache_holds_what_the_other_does(make_prior):
    prior = make_prior()
    shape = prior.config.transformer
    static, growing = (kind(shape, 2, 6, prior.start_vector) for kind in (StaticCache, KeyValueCache))
    for step in range(6):
        x = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(step))
        static.prepare_step()
        equal(prior.transformer(x, causal=True, cache=static), prior.transformer(x, causal=True, cache=growing))
        assert static.length == growing.length == step + 1
    equal(static.keys[:, :, :, :6], growing.keys)
    equal(static.values[:, :, :, :6], growing.values)
    assert not static.keys[:, :, :, 6:].any()


# What a graph can hold.


class Recorder(TorchDispatchMode):
    """Writes down each operation: its name, numbers, shapes, and for each tensor its address or which result it is."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []
        self._results: dict[int, Tensor] = {}  # kept, so that no identity is given out twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.append((str(func), tree_map(self._described, (args, kwargs))))
        out = func(*args, **(kwargs or {}))
        self._results.update((id(leaf), leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out

    def _described(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return repr(x)
        which = list(self._results).index(id(x)) if id(x) in self._results else x.data_ptr()
        return tuple(x.shape), x.stride(), x.dtype, x.device, which


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_step_of_a_reach_is_the_same_work_at_the_same_addresses(
    make_prior, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any], dtype: torch.dtype
):
    recorded: list[Any] = []

    def recording(work: Callable[[], None], *_: object) -> Callable[[], None]:
        def replay() -> None:
            with Recorder() as recorder:
                work()
            recorded.append(recorder.operations)

        return replay

    monkeypatch.setattr(graphed, "captured", recording)
    monkeypatch.setattr(transformer, "FIRST_REACH", 8)
    prior = make_prior(grid=(3, 7), **form)
    ours = GraphedPrior(prior, dtype)
    for seed in range(2):
        steps(ours, ours.start(2), random_tokens(2, prior, seed))
    for begin, end in ((0, 8), (8, 16), (16, 21)):  # the reaches
        first, *others = recorded[begin:end] + recorded[21 + begin : 21 + end]
        assert all(operations == first for operations in others)
        assert first != recorded[begin - 1]
        names = {name for name, _ in first}
        assert names >= {"aten.embedding.default", "aten.index_copy_.default", "aten.addmm.default"}
        for waits_for_the_device in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "lift_fresh"):
            assert not any(name.startswith(f"aten.{waits_for_the_device}.") for name in names)
        assert not any("device" in options for _, (_, options) in first)  # nothing comes from elsewhere


@every_form
@pytest.mark.parametrize("grid", [(1, 1), (4, 3), OVER_TWO_REACHES], ids=str)
def test_work_done_twice_changes_no_logits(
    make_prior, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any], grid: tuple[int, int]
):
    def twice(work: Callable[[], None], *_: object) -> Callable[[], None]:
        def replay() -> None:
            work()
            work()

        return replay

    monkeypatch.setattr(graphed, "captured", twice)
    prior = make_prior(grid=grid, **form)
    ours = GraphedPrior(prior, torch.float32)
    for seed in range(2):
        tokens = random_tokens(2, prior, seed)
        equal(steps(ours, ours.start(2), tokens), prior.logits(tokens))


@every_form
def test_a_capture_changes_no_logits(make_prior, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any]):
    captures = []

    def as_on_a_gpu(work: Callable[[], None], *_: object) -> Callable[[], None]:
        for _ in range(graphed.WARM_UP_STEPS):
            work()
        captures.append(work)  # which runs nothing
        return work

    monkeypatch.setattr(graphed, "captured", as_on_a_gpu)
    prior = make_prior(grid=OVER_TWO_REACHES, **form)
    ours, tokens = GraphedPrior(prior, torch.float32), random_tokens(2, prior)
    for _ in range(2):
        equal(steps(ours, ours.start(2), tokens), prior.logits(tokens))
    assert len(captures) == 3  # one for each reach, none for the second state


# The prior that it is made from, and what becomes of it.


def test_the_prior_it_is_made_from_is_left_alone(make_prior):
    prior = make_prior().train()
    before = copy.deepcopy(prior.state_dict())
    ours = GraphedPrior(prior)
    sample(ours, [0], seed=0)
    assert prior.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in prior.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in prior.state_dict().items())
    with torch.no_grad():
        prior.head.bias.add_(1.0)
    assert not torch.equal(ours.inner.head.bias.float(), prior.head.bias)


def test_it_describes_itself_as_the_prior_does(make_prior):
    prior = make_prior(bits=2, grid=(3, 4))
    ours = GraphedPrior(prior)
    assert (ours.config, ours.bits, ours.grid, ours.length) == (prior.config, 2, (3, 4), 12)


def test_the_loss_and_the_bits_are_those_of_the_prior(make_prior):
    prior = make_prior()
    ours, tokens = GraphedPrior(prior, torch.float32), random_tokens(4, prior)
    equal(ours.loss(tokens), prior.loss(tokens).detach())
    equal(ours.token_bits(tokens), prior.token_bits(tokens))
    with pytest.raises(ShapeError, match=r"\(B, 2, 3\)"):
        ours.loss(torch.zeros(1, 3, 2, dtype=torch.int64))


@every_form
def test_bfloat16_is_near(make_prior, form: dict[str, Any]):
    prior = make_prior(grid=(3, 40), **form)
    ours, tokens = GraphedPrior(prior), random_tokens(3, prior)
    assert next(ours.parameters()).dtype == torch.bfloat16
    logits, wanted = steps(ours, ours.start(3), tokens), prior.logits(tokens)
    assert logits.dtype == ours.logits(tokens).dtype == torch.float32
    assert relative_error(logits, wanted) < 0.02


def test_a_way_is_added_in_the_type_of_the_weights(make_prior):
    prior = make_prior(grid=(3, 40))
    ours, tokens = GraphedPrior(prior), random_tokens(3, prior)
    path = prior.conditioned(torch.zeros(3, 0), 3)
    logits = ours.logits(tokens, path)
    assert logits.dtype == torch.float32
    assert relative_error(logits, prior.logits(tokens)) < 0.02
    painted = paint(ours, range(2), seed=0, path=path.rows(slice(2)))
    assert painted.shape == (2, 3, 40)


def test_guidance_towards_nothing_is_refused(make_prior):
    with pytest.raises(ConfigError, match="none is given"):
        paint(GraphedPrior(make_prior(), torch.float32), range(2), seed=0, settings=SamplingConfig(guidance=2.0))


def test_rotary_angles_keep_their_digits(make_prior):
    prior = make_prior(grid=(3, 40), positions="rotary")
    angles = GraphedPrior(prior).inner.angles
    assert angles.dtype == torch.float32
    assert torch.equal(angles, prior.angles)


def test_a_type_that_is_not_of_floats_is_refused(make_prior):
    with pytest.raises(ConfigError, match=r"^dtype is torch.int8: it must be a type of floats"):
        GraphedPrior(make_prior(), torch.int8)


def test_dropout_never_acts(make_prior):
    dropping, without = make_prior(dropout=0.5), make_prior()
    ours, tokens = GraphedPrior(dropping.train(), torch.float32).train(), random_tokens(2, without)
    assert not any(module.training for module in ours.modules())
    equal(steps(ours, ours.start(2), tokens), without.logits(tokens))


def test_inference_mode_may_begin_and_end_between_steps(make_prior):
    prior = make_prior()
    ours, tokens = GraphedPrior(prior, torch.float32), random_tokens(1, prior)
    with torch.inference_mode():
        state = ours.start(1)
        logits = [ours.next_logits(state, None)]
    for step in range(1, prior.length):
        with torch.inference_mode(step % 2 == 0):
            logits.append(ours.next_logits(state, tokens.flatten(1)[:, step - 1].clone()))
    assert not any(each.requires_grad or each.is_inference() for each in logits)
    equal(torch.stack(logits, dim=1), prior.logits(tokens).detach())


def test_a_state_does_not_outlive_a_conversion(make_prior):
    prior = make_prior()
    ours, tokens = GraphedPrior(prior, torch.float32), random_tokens(2, prior)
    state = ours.start(2)
    ours.next_logits(state, None)
    ours.double()
    with pytest.raises(ShapeError, match="start another"):
        ours.next_logits(state, tokens.flatten(1)[:, 0])
    another = ours.start(2)
    assert another.buffers is not state.buffers
    logits = steps(ours, another, tokens)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, copy.deepcopy(prior).double().logits(tokens), rtol=0, atol=1e-12)


def test_a_copy_has_its_own_weights_and_buffers(make_prior):
    ours = GraphedPrior(make_prior(), torch.float32)
    state = ours.start(1)
    wanted = ours.next_logits(state, None)
    twin = copy.deepcopy(ours)
    with torch.no_grad():
        ours.inner.head.bias.add_(1.0)
    assert twin.start(1).buffers is not state.buffers
    equal(twin.next_logits(twin.start(1), None), wanted)
    with pytest.raises(ShapeError, match="start another"):
        twin.next_logits(state, torch.tensor([0]))


# Pictures.


@every_form
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_float32_paints_the_pictures_of_the_prior(make_prior, form: dict[str, Any], settings: SamplingConfig):
    prior = make_prior(bits=4, grid=(3, 4), **form)
    ours = GraphedPrior(prior, torch.float32)
    wanted = sample(prior, range(8), seed=0, settings=settings)
    assert torch.equal(sample(ours, range(8), seed=0, settings=settings), wanted)
    painted = ours.paint(range(8), seed=0, settings=settings)
    assert painted.dtype == torch.int64
    assert torch.equal(painted, wanted)
    assert torch.equal(ours.paint([6, 1], seed=0, settings=settings), wanted[[6, 1]])


def test_float32_decides_races_in_doubt_as_sampling_does(make_prior, monkeypatch: pytest.MonkeyPatch):
    prior = make_prior()
    with torch.no_grad():  # two tokens alike, but for less than a doubt
        prior.head.weight[1] = prior.head.weight[0]
        prior.head.bias[1] = prior.head.bias[0] + 1e-5
    greedy = SamplingConfig(temperature=0.0)
    ours, wanted = GraphedPrior(prior, torch.float32), sample(prior, range(64), seed=0)
    assert torch.equal(ours.paint(range(64), seed=0), wanted)
    decided: list[list[int]] = []

    def deciding(prior: GraphedPrior, numbers: list[int], **options: Any) -> Tensor:
        decided.append(numbers)
        return sample(prior, numbers, **options)

    monkeypatch.setattr(graphed, "sample", deciding)
    assert torch.equal(ours.paint([5, 3], seed=0, settings=greedy), sample(prior, [5, 3], seed=0, settings=greedy))
    assert decided == [[5, 3]]
    GraphedPrior(prior).paint([5, 3], seed=0, settings=greedy)
    assert len(decided) == 1  # bfloat16 leaves them


@pytest.mark.parametrize("kept", [range(0), range(6), range(12), range(3, 10, 2)], ids=str)
def test_given_tokens_are_kept_and_the_others_painted_as_sampling_does(make_prior, kept: range):
    prior = make_prior(bits=4, grid=(3, 4))
    given = torch.full((5, 12), -1)
    given[:, kept] = random_tokens(5, prior).flatten(1)[:, kept]
    given = given.view(5, 3, 4)
    before = given.clone()
    wanted = sample(prior, range(5), seed=0, given=given)
    assert torch.equal(GraphedPrior(prior, torch.float32).paint(range(5), seed=0, given=given), wanted)
    assert torch.equal(given, before)
    assert torch.equal(GraphedPrior(prior).paint(range(5), seed=0, given=given)[given >= 0], given[given >= 0])


def test_given_tokens_that_do_not_fit_are_refused(make_prior):
    ours = GraphedPrior(make_prior())
    with pytest.raises(ShapeError, match="2 pictures are given for 1"):
        ours.paint([0], seed=0, given=torch.full((2, 2, 3), -1))
    with pytest.raises(TokenError, match="-2"):
        ours.paint([0], seed=0, given=torch.full((1, 2, 3), -2))


def test_bfloat16_paints_pictures_as_likely_as_the_prior_does(make_prior):
    prior = make_prior(bits=1, grid=(1, 3))
    every_picture = torch.tensor([[[i >> 2 & 1, i >> 1 & 1, i & 1]] for i in range(8)])
    wanted = (-prior.token_bits(every_picture).sum(dim=(1, 2))).exp2()
    drawn = GraphedPrior(prior).paint(range(4000), seed=0).flatten(1) @ torch.tensor([4, 2, 1])
    torch.testing.assert_close(drawn.bincount(minlength=8) / 4000, wanted, rtol=0, atol=0.03)


def test_each_token_is_told_with_all_so_far(make_prior):
    told: list[tuple[int, Tensor]] = []
    ours = GraphedPrior(make_prior())
    tokens = ours.paint(range(2), seed=0, on_token=lambda done, so_far: told.append((done, so_far.clone())))
    assert [done for done, _ in told] == [1, 2, 3, 4, 5, 6]
    for done, so_far in told:
        assert torch.equal(so_far.flatten(1)[:, :done], tokens.flatten(1)[:, :done])
        assert not so_far.flatten(1)[:, done:].any()


def test_a_prior_that_has_diverged_is_refused(make_prior):
    prior = make_prior()
    with torch.no_grad():
        prior.head.bias[2] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        GraphedPrior(prior).paint([0], seed=0)


# On a GPU.


@needs_gpu
@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_captured_steps_give_the_logits_of_eager_ones(
    make_prior, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any], dtype: torch.dtype
):
    prior = make_prior(grid=OVER_TWO_REACHES, **form).cuda()
    tokens = random_tokens(3, prior).cuda()
    captured, eager = GraphedPrior(prior, dtype), GraphedPrior(prior, dtype)
    state = captured.start(3)
    for _ in range(2):  # captures, then replays alone
        logits = steps(captured, state, tokens)
        replays = dict(state.buffers.replays)
        del state
        state = captured.start(3)
        assert state.buffers.replays == replays
    monkeypatch.setattr(graphed, "captured", lambda work, *_: work)
    assert relative_error(logits, steps(eager, eager.start(3), tokens)) < (1e-5 if dtype == torch.float32 else 0.01)
    if dtype == torch.float32:
        torch.testing.assert_close(logits, prior.logits(tokens), rtol=0, atol=1e-4)


@needs_gpu
def test_two_captured_states_at_once_do_not_mix(make_prior):
    prior = make_prior().cuda()
    ours = GraphedPrior(prior, torch.float32)
    states = [ours.start(batch) for batch in (1, 3, 3)]
    tokens = [random_tokens(batch, prior, seed).cuda() for seed, batch in enumerate((1, 3, 3))]
    for step in range(prior.length):
        for state, given in zip(states, tokens, strict=True):
            last = given.flatten(1)[:, step - 1] if step else None
            logits = ours.next_logits(state, last)
            torch.testing.assert_close(logits, prior.logits(given)[:, step], rtol=0, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_gpu_paints_the_pictures_that_a_cpu_does(make_prior, settings: SamplingConfig):
    prior = make_prior(bits=4, grid=(3, 4))
    wanted = sample(prior, range(16), seed=0, settings=settings)
    ours = GraphedPrior(prior.cuda(), torch.float32)
    for _ in range(2):  # captures, then replays alone
        assert torch.equal(ours.paint(range(16), seed=0, settings=settings), wanted)
        assert torch.equal(sample(ours, range(16), seed=0, settings=settings), wanted)


@needs_gpu
def test_replays_paint_the_same_tokens_in_bfloat16(make_prior):
    ours = GraphedPrior(make_prior(grid=OVER_TWO_REACHES).cuda())
    assert torch.equal(ours.paint(range(4), seed=0), ours.paint(range(4), seed=0))
