"""The network whose features frames are compared in, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from bisquit import generate
from bisquit.checkpoint import load_features, load_tokenizer, save_features, save_tokenizer
from bisquit.config import parse_settings
from bisquit.errors import ConfigError, ModelError, ShapeError
from bisquit.features import FeatureNetwork, FeatureNetworkConfig
from bisquit.generate import load_feature_network, shipped_models
from bisquit.shipped import write_sums


def make_network(seed: int = 0, classes: tuple[str, ...] = ("ice", "sand", "été"), **config: Any) -> FeatureNetwork:
    torch.manual_seed(seed)
    return FeatureNetwork(FeatureNetworkConfig(**{"widths": (8, 16), "dimensions": 6, **config}), classes).eval()


def noise(count: int, height: int = 33, width: int = 47, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_features(make_network(), tmp_path / "features.safetensors")
    return tmp_path / "features.safetensors"


def refusal(load: Callable[[Any], object], path: Path | None) -> str:
    with pytest.raises(ModelError) as error:
        load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 150)])
def test_frames_of_any_size_have_features_and_logits_of_their_classes(size: tuple[int, int]):
    features, logits = FeatureNetwork(FeatureNetworkConfig(), ("a", "b")).describe(noise(3, *size))
    assert (features.shape, features.dtype) == ((3, 64), torch.float32)
    assert logits.shape == (3, 2)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def test_a_fingerprint_names_configuration_classes_and_weights(file: Path):
    own = make_network().fingerprint()
    assert load_features(file).fingerprint() == own
    others = make_network(seed=1), make_network(classes=("ice", "sand", "snow")), make_network(dimensions=7)
    assert len({own, *(other.fingerprint() for other in others)}) == 4


def test_the_usual_network_fits_into_a_megabyte_in_half_precision(tmp_path: Path):
    network = FeatureNetwork(FeatureNetworkConfig(), tuple(f"track {i}" for i in range(25)))
    save_features(network, tmp_path / "f", torch.float16)
    assert (tmp_path / "f").stat().st_size < 2**20
    assert load_features(tmp_path / "f").stem.weight.dtype == torch.float32


def test_what_is_said_of_a_frame_does_not_depend_on_its_batch_nor_on_training():
    network, frames = make_network(), noise(5)
    together = network.describe(frames)
    for i in range(5):
        torch.testing.assert_close(network.describe(frames[i : i + 1]).features, together.features[i : i + 1])
    torch.testing.assert_close(network.train().describe(frames).features, together.features)


def test_logits_are_a_linear_map_of_the_features():
    network = make_network()
    features, logits = network.describe(noise(2))
    torch.testing.assert_close(logits, F.linear(features, network.head.weight, network.head.bias))
    assert (features < 0).any()


def test_how_bright_a_frame_is_stays_known():
    network, frames = make_network(), noise(1)
    dark = network.describe(frames // 4).features
    assert (network.describe(frames).features - dark).norm() > 0.05 * dark.norm()


def test_all_weights_get_a_gradient():
    network = make_network()
    network(torch.randn(2, 3, 33, 47)).logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("frames", [noise(1).float(), noise(1)[0], noise(1)[:0]])
def test_other_arrays_are_refused(frames: Tensor):
    with pytest.raises(ShapeError, match="must be uint8"):
        make_network().describe(frames)


@pytest.mark.parametrize(
    ("config", "named"),
    [({"widths": ()}, "widths"), ({"widths": (12,)}, "multiples of 8"), ({"dimensions": 0}, "dimensions is 0")],
)
def test_settings_out_of_range_are_named(config: dict[str, Any], named: str):
    with pytest.raises(ConfigError, match=named):
        FeatureNetworkConfig(**config)


def test_one_class_cannot_be_told_apart():
    with pytest.raises(ConfigError, match="two names at least"):
        make_network(classes=("ice",))


def test_settings_travel_as_json():
    config = FeatureNetworkConfig(widths=(16,), dimensions=5)
    assert parse_settings(FeatureNetworkConfig, json.loads(json.dumps(config.to_dict()))) == config


def test_a_network_comes_back_as_it_was(file: Path):
    saved, loaded = make_network(), load_features(file)
    assert (loaded.config, loaded.classes) == (saved.config, saved.classes)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())
    assert not loaded.training
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["bisquit"])["part"] == "features"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_damaged(file: Path, share: float):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "cut or damaged" in refusal(load_features, file)


def test_a_pickle_under_our_name_is_not_run(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weights": Trap()}, tmp_path / "features.safetensors")
    assert "cannot be read as safetensors" in refusal(load_features, tmp_path / "features.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_other_parts_are_not_mistaken_for_one_another(file: Path, make_tokenizer, tmp_path: Path):
    save_tokenizer(make_tokenizer(), tmp_path / "tokenizer.safetensors")
    assert "holds a tokenizer, not a feature network" in refusal(load_features, tmp_path / "tokenizer.safetensors")
    assert "holds a feature network, not a tokenizer" in refusal(load_tokenizer, file)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": None},
        {"classes": "ice"},
        {"classes": ["ice", 3]},
        {"classes": ["ice"]},
        {"classes": ["ice", "sand"]},
        {"config": None},
        {"config": {"widths": [7]}},
        {"config": {"widths": [8, 16], "dimensions": 5}},
    ],
    ids=str,
)
def test_a_description_that_is_none_is_refused(file: Path, changes: dict[str, Any]):
    with safe_open(file, framework="pt") as opened:
        description = json.loads(opened.metadata()["bisquit"]) | changes
    save_file(load_file(file), file, metadata={"bisquit": json.dumps(description)})
    assert str(file) in refusal(load_features, file)


def test_a_network_is_found_by_its_file_or_its_folder(file: Path):
    assert load_feature_network(file).classes == load_feature_network(file.parent).classes == make_network().classes
    assert "nowhere is not there" in refusal(load_feature_network, file.parent / "nowhere")


def test_a_network_that_ships_is_the_default_and_no_model(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(generate, "_WEIGHTS", tmp_path / "weights")
    assert "train one with `bisquit train features`" in refusal(load_feature_network, None)
    (tmp_path / "weights" / "features").mkdir(parents=True)
    file.rename(tmp_path / "weights" / "features" / "features.safetensors")
    write_sums(tmp_path / "weights")
    assert load_feature_network().classes == make_network().classes
    assert shipped_models() == []
