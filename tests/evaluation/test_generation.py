"""How new frames are judged: distances, neighbours and classes whose figures are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from bisquit.errors import ConfigError, FrameError, ShapeError
from bisquit.evaluation import (
    Generation,
    check_judgeable,
    frechet_distance,
    frechet_interval,
    judge,
    manifold,
    memorisation,
    nearest,
    neighbours,
)
from bisquit.evaluation.bootstrap import resamples, units
from bisquit.evaluation.generation import FIGURES, class_accuracy, entropy_bits
from bisquit.evaluation.neighbours import mean_pairwise_distance
from bisquit.features import FeatureNetwork, FeatureNetworkConfig
from bisquit.frames import FrameSet


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(rows: int, dimensions: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(rows, dimensions, generator=generator(seed), dtype=torch.float64)


def with_moments(mean: Tensor, deviations: Tensor, seed: int) -> Tensor:
    """Return 50 rows whose mean and whose covariance, a diagonal one, are exactly these."""
    x = normal(50, len(mean), seed)
    q = torch.linalg.qr(x - x.mean(dim=0)).Q  # columns sum to 0, for those of x do
    return mean + q * deviations * math.sqrt(49)


class Identity(nn.Module):
    num_features = 5

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_the_distance_of_diagonal_gaussians_is_that_of_their_means_and_deviations():
    mean_a, mean_b = torch.tensor([0.0, 1, 2]).double(), torch.tensor([0.5, 1, -1]).double()
    deviations_a, deviations_b = torch.tensor([1.0, 2, 3]).double(), torch.tensor([2.0, 2, 0]).double()
    a, b = with_moments(mean_a, deviations_a, 0), with_moments(mean_b, deviations_b, 1)
    wanted = (mean_a - mean_b).square().sum() + (deviations_a - deviations_b).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(wanted))


def test_the_distance_agrees_with_torchmetrics():
    mix = normal(5, 5, seed=7)
    a, b = normal(40, 5) @ mix, 1.5 * normal(60, 5, seed=1) + 0.3
    fid = FrechetInceptionDistance(feature=Identity())
    fid.update(a, real=True)
    fid.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(float(fid.compute()), rel=1e-5)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(frechet_distance(a, b), rel=1e-5)


def test_a_set_is_no_way_from_itself_and_the_way_back_is_as_long():
    a, b = normal(30), 2 * normal(20, seed=1)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b + 100) == pytest.approx(
        float((a.mean(dim=0) - b.mean(dim=0) - 100).square().sum()) + frechet_distance(a - a.mean(0), b - b.mean(0))
    )


@pytest.mark.parametrize(("rows", "others"), [(3, 9), (9, 3)])
def test_fewer_rows_than_a_covariance_needs_are_refused(rows: int, others: int):
    with pytest.raises(ShapeError, match="needs 4 rows at least"):
        frechet_distance(normal(rows), normal(others))
    with pytest.raises(ShapeError, match="needs 4 rows at least"):
        frechet_interval(normal(rows), normal(others), generator())
    with pytest.raises(ShapeError, match="must be"):
        frechet_distance(normal(9, 3), normal(9, 4))


def test_the_interval_is_about_what_new_sets_show():
    distances = [frechet_distance(normal(60, 2, seed), normal(80, 2, 1000 + seed) + 1) for seed in range(200)]
    interval = frechet_interval(normal(60, 2), normal(80, 2, 1000) + 1, generator())
    assert interval == pytest.approx(1.96 * float(np.std(distances)), rel=0.3)


def test_the_interval_depends_on_the_generator_alone():
    a, b = normal(20), normal(20, seed=1)
    torch.manual_seed(1)
    first = frechet_interval(a, b, generator(), rounds=20)
    torch.manual_seed(2)
    assert frechet_interval(a, b, generator(), rounds=20) == first
    assert frechet_interval(a, b, generator(1), rounds=20) != first


@pytest.mark.parametrize("side", ["a_units", "b_units"])
def test_frames_that_are_alike_within_their_races_tell_less(side: str):
    races = np.arange(100) // 20
    alike = normal(5, seed=3)[races] + 0.01 * normal(100)
    other = normal(100, seed=1)
    sides = (alike, other) if side == "a_units" else (other, alike)
    by_race = frechet_interval(*sides, generator(), **{side: units(100, races)})
    by_frame = frechet_interval(*sides, generator())
    assert by_race > 2 * by_frame
    of_one_track_each = frechet_interval(*sides, generator(), **{side: units(100, races, classes=races)})
    assert of_one_track_each < by_frame  # nothing tells how other races would differ


def test_a_race_is_drawn_with_all_its_frames():
    groups = np.array([7, 3, 7, 3, 3, 9])
    members = {7: [0, 2], 3: [1, 3, 4], 9: [5]}
    seen = set()
    for rows in resamples(units(6, groups), 50, generator()):
        counts = np.bincount(rows.numpy(), minlength=6)
        assert all(len(set(counts[rows_of_group])) == 1 for rows_of_group in members.values())
        assert sum(counts[rows_of_group[0]] for rows_of_group in members.values()) == 3
        seen.add(tuple(counts))
    assert len(seen) > 5


def test_of_each_class_as_many_races_are_drawn_as_it_has_and_frames_where_it_has_one():
    classes = np.array([0, 0, 0, 1, 1, 1, -1, -1])
    groups = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    seen = [np.bincount(rows.numpy(), minlength=8) for rows in resamples(units(8, groups, classes), 200, generator())]
    assert all(counts[0] == counts[1] and counts[0] + counts[2] == 2 for counts in seen)
    assert all(counts[3:6].sum() == 3 and counts[6:].sum() == 2 for counts in seen)
    assert {tuple(counts[3:6]) for counts in seen} >= {(1, 1, 1), (3, 0, 0), (0, 1, 2)}
    singly = [np.bincount(rows.numpy(), minlength=6) for rows in resamples(units(6), 200, generator())]
    assert all(counts.sum() == 6 for counts in singly)
    np.testing.assert_allclose(np.mean(singly, axis=0), 1, atol=0.2)


def test_neighbourhoods_of_points_on_a_line_are_as_counted_by_hand():
    real = torch.tensor([[0.0], [1], [2], [10]])  # balls of the nearest neighbour: 1, 1, 1, 8
    samples = torch.tensor([[0.5], [5], [30]])  # 4.5, 4.5, 25
    judged = manifold(samples, real, k=1)
    assert judged.precision == pytest.approx(2 / 3)  # 30 lies in no ball
    assert judged.recall == pytest.approx(1.0)  # the ball of 30 reaches to 5, and so to 10
    assert judged.density == pytest.approx((2 + 1 + 0) / 3)  # 0.5 in those of 0 and 1, 5 in that of 10
    assert judged.coverage == pytest.approx(3 / 4)


def by_hand(samples: np.ndarray, real: np.ndarray, k: int) -> tuple[float, ...]:
    """The four figures as their papers write them, pair by pair."""

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.linalg.norm(x - y))

    def radii(x: np.ndarray) -> list[float]:
        return [sorted(distance(a, b) for b in x)[k] for a in x]

    real_radii, sample_radii = radii(real), radii(samples)
    hits = [[distance(s, r) <= radius for r, radius in zip(real, real_radii, strict=True)] for s in samples]
    recalled = [any(distance(s, r) <= rad for s, rad in zip(samples, sample_radii, strict=True)) for r in real]
    return (
        float(np.mean([any(row) for row in hits])),
        float(np.mean(recalled)),
        float(np.sum(hits)) / (k * len(samples)),
        float(np.mean(np.any(hits, axis=0))),
    )


@pytest.mark.parametrize("at_once", [2**22, 100])
def test_neighbourhoods_are_those_of_the_papers_however_they_are_blocked(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "_DISTANCES_AT_ONCE", at_once)
    samples, real = normal(37) + 0.5, normal(45, seed=1)
    judged = manifold(samples, real, k=3)
    assert tuple(judged) == pytest.approx(by_hand(samples.numpy(), real.numpy(), 3))
    assert 0.2 < judged.coverage < 1
    assert mean_pairwise_distance(real) == pytest.approx(float(torch.pdist(real).mean()))


def test_samples_of_one_mode_are_precise_and_recall_little():
    real = torch.cat((normal(60), normal(60, seed=1) + 50))
    judged = manifold(normal(60, seed=2), real)
    assert judged.precision > 0.7
    assert judged.recall < 0.5
    assert judged.coverage < 0.6


def test_too_few_rows_for_the_neighbours_are_refused():
    with pytest.raises(ShapeError, match="N and M above 5"):
        manifold(normal(5), normal(9))
    with pytest.raises(ShapeError, match="N and M above 5"):
        manifold(normal(9), normal(9, 2))


def noise(count: int, seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("queries_at_once", "frames_at_once"), [(1024, 512), (3, 4)])
def test_the_nearest_frame_is_the_one_with_the_least_squared_error(
    queries_at_once: int, frames_at_once: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(neighbours, "_QUERIES_AT_ONCE", queries_at_once)
    monkeypatch.setattr(neighbours, "_FRAMES_AT_ONCE", frames_at_once)
    queries, frames = noise(7, 0), noise(13, 1)
    queries[4] = frames[9]
    queries[5] = frames[2]
    queries[5, 0, 0, 0] ^= 1
    told: list[tuple[int, int]] = []
    found = nearest(queries, frames, lambda *counts: told.append(counts))
    errors = (queries[:, None].astype(np.float64) - frames[None]) / 255
    rms = np.sqrt(np.square(errors).mean(axis=(2, 3, 4)))
    assert found.index.tolist() == rms.argmin(axis=1).tolist()
    np.testing.assert_allclose(found.rms, rms.min(axis=1), rtol=1e-12)
    assert found.rms[4] == 0
    assert found.rms[5] == pytest.approx(1 / 255 / math.sqrt(6 * 8 * 3))
    assert told[-1] == (7, 7)
    assert told == sorted(told)


def test_frames_of_another_size_have_no_nearest():
    with pytest.raises(ShapeError, match="one size"):
        nearest(noise(2, 0), noise(2, 1, height=7))
    with pytest.raises(ShapeError, match="one size"):
        nearest(noise(2, 0), noise(2, 1)[:0])


def test_the_share_that_is_near_is_five_percent_by_chance_and_more_where_samples_are_copies():
    rms = np.random.default_rng(0).uniform(0.1, 0.2, 4000)
    fair = memorisation(rms[:2000], rms[2000:], generator())
    assert fair.share == pytest.approx(0.05, abs=0.015)
    assert fair.share - fair.share_interval < 0.05 < fair.share + fair.share_interval
    copies = memorisation(np.concatenate((rms[:1800], np.full(200, 0.01))), rms[2000:], generator())
    assert copies.share == pytest.approx(0.145, abs=0.02)
    assert copies.share - copies.share_interval > 0.05
    assert (copies.smallest_rms, copies.valid_smallest_rms) == (0.01, rms[2000:].min())


def test_no_near_sample_among_few_is_no_sure_thing():
    rms = np.linspace(0.1, 0.2, 100)
    few, many = (memorisation(np.full(n, 0.3), rms, generator()) for n in (20, 2000))
    assert few.share == many.share == 0
    assert few.share_interval > 0.1 > 0.01 > many.share_interval > 0


def test_races_make_the_bound_less_sure():
    rng = np.random.default_rng(0)
    races = np.arange(200) // 20
    valid = rng.normal(0.2, 0.02, 10)[races] + rng.normal(0, 0.001, 200)
    samples = rng.normal(0.2, 0.02, 500)
    by_race, by_frame = (memorisation(samples, valid, generator(), drawn) for drawn in (units(200, races), None))
    assert by_race.share == by_frame.share
    assert by_race.share_interval > 1.5 * by_frame.share_interval


def test_entropy_and_accuracy_of_classes():
    classes = torch.tensor([0, 0, 5, 5, 2, 2, 3, 3])
    assert entropy_bits(classes) == pytest.approx(2)
    assert math.copysign(1, entropy_bits(classes[:2])) == 1
    assert class_accuracy(classes, np.array([0, 1, 5, -1, -1, -1, 3, 3])) == pytest.approx(4 / 5)
    assert class_accuracy(classes, np.full(8, -1)) is None


@pytest.fixture
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureNetworkConfig(widths=(8,), dimensions=4), ("ice", "sand"))


@pytest.fixture
def judged(make_noise, make_tokenizer, network: FeatureNetwork) -> Callable[..., Generation]:
    """A function that judges samples by 20 frames of noise and 30 others, the samples' number by default 12."""
    frames, real = make_noise(20, seed=1), make_noise(30, seed=2)

    def call(samples: np.ndarray | None = None, **changes: object) -> Generation:
        given = noise(12, 3, 8, 12) if samples is None else samples
        return judge(given, frames, real, network, make_tokenizer(), batch_size=5, **changes)

    return call


def test_a_judgement_has_every_figure_and_they_are_plain_data(judged):
    data = judged().to_dict()
    assert tuple(data) == FIGURES
    assert data["samples"] == 12
    assert data["class_accuracy"] is None
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert all(isinstance(value, float) for key, value in data.items() if key not in ("samples", "class_accuracy"))


def test_samples_are_compared_with_the_frames_that_are_held_out(judged, make_noise, network):
    frames = make_noise(20, seed=1)
    same = judged(frames[:])
    assert same.frechet_track == pytest.approx(0, abs=1e-9)
    assert (same.precision, same.recall, same.coverage, same.diversity) == (1, 1, 1, pytest.approx(1))
    assert same.class_entropy_bits == same.real_class_entropy_bits
    samples = noise(12, 3, 8, 12)
    features = [network.describe(torch.from_numpy(part)).features for part in (samples, frames[:])]
    assert judged(samples).frechet_track == pytest.approx(frechet_distance(*features), rel=1e-5)


def test_the_floor_is_of_other_real_frames_as_many_as_samples_and_does_not_depend_on_these(judged):
    first, second = judged(), judged(np.zeros((12, 8, 12, 3), dtype=np.uint8) + noise(12, 9, 8, 12) // 2)
    assert first.frechet_track != second.frechet_track
    assert first.frechet_track_floor == second.frechet_track_floor > 0
    assert first.frechet_track_floor != judged(seed=1).frechet_track_floor
    assert judged(noise(29, 3, 8, 12)).frechet_track_floor < first.frechet_track_floor  # more frames, less noise


def test_the_floor_of_all_real_frames_is_their_distance(judged, make_noise, network):
    parts = (make_noise(30, seed=2), make_noise(20, seed=1))
    features = [network.describe(torch.from_numpy(part[:])).features for part in parts]
    assert judged(noise(30, 3, 8, 12)).frechet_track_floor == pytest.approx(frechet_distance(*features), rel=1e-4)


def test_copies_of_real_frames_are_found(judged, make_noise):
    real = make_noise(30, seed=2)
    samples = noise(12, 3, 8, 12)
    samples[:6] = real[10:16]
    found = judged(samples)
    assert found.nearest_share >= 0.5
    assert found.nearest_share - found.nearest_share_interval > 0.05
    assert found.nearest_smallest_rms == 0 < found.valid_nearest_smallest_rms
    assert found.neighbours.index[:6].tolist() == list(range(10, 16))


def test_unseen_frames_are_measured_after_they_went_through_the_tokenizer(judged, make_noise, make_tokenizer):
    frames, real, tokenizer = make_noise(20, seed=1), make_noise(30, seed=2), make_tokenizer()
    remade = tokenizer.decode(tokenizer.encode(torch.from_numpy(frames[:]))).numpy()
    wanted = nearest(remade, real).rms.min()
    assert wanted != nearest(frames, real).rms.min()
    assert judged().valid_nearest_smallest_rms == pytest.approx(wanted, abs=1e-3)


def test_classes_that_were_asked_for_are_compared_with_those_that_are_seen(judged, network):
    seen = network.describe(torch.from_numpy(noise(12, 3, 8, 12))).logits.argmax(dim=1).numpy()
    assert judged(labels=seen).class_accuracy == 1
    assert judged(labels=1 - seen).class_accuracy == 0


def test_progress_counts_up_to_all(judged):
    told: list[tuple[int, int]] = []
    judged(progress=lambda *counts: told.append(counts))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


def test_frames_whose_races_and_classes_are_unknown_are_judged_too(make_noise, make_tokenizer, network):
    frames, real = (replace(make_noise(n, seed=n), groups=None, labels=np.full(n, -1)) for n in (20, 30))
    result = judge(noise(12, 3, 8, 12), frames, real, network, make_tokenizer())
    assert min(result.frechet_track_interval, result.frechet_track_floor_interval, result.nearest_share_interval) > 0


def sized(frames: FrameSet, height: int) -> FrameSet:
    return replace(frames, pixels=frames.pixels[:, :height])


def test_too_few_or_too_many_of_anything_is_refused_before_any_work(make_noise, network):
    frames, real = make_noise(20), make_noise(30)
    check_judgeable(6, frames, real, network)
    with pytest.raises(ConfigError, match="samples is 5: it must be 6 at least"):
        check_judgeable(5, frames, real, network)
    with pytest.raises(ConfigError, match="samples is 31: it must be at most 30, the number of --real frames"):
        check_judgeable(31, frames, real, network)
    with pytest.raises(FrameError, match="5 frames"):
        check_judgeable(6, frames.subset(slice(5)), real, network)
    with pytest.raises(FrameError, match="pass --size"):
        check_judgeable(6, sized(frames, 6), real, network)
    wide = FeatureNetwork(FeatureNetworkConfig(widths=(8,), dimensions=16), ("ice", "sand"))
    with pytest.raises(ConfigError, match="17 at least"):
        check_judgeable(16, frames, real, wide)
