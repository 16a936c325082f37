"""Models on disk: whole, strict, and nothing but data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bisquit import checkpoint
from bisquit.atomic import PARTIAL
from bisquit.checkpoint import (
    SavedPrior,
    load_prior,
    load_tokenizer,
    read_tensors,
    save_prior,
    save_tokenizer,
    write_tensors,
)
from bisquit.conditioning import Conditions
from bisquit.engine import IntegerPrior
from bisquit.errors import ModelError
from bisquit.priors import AnyOrderConfig, AnyOrderPrior, MaskedConfig, MaskedPrior, RasterConfig, RasterPrior
from bisquit.text import learn_to_read
from bisquit.tokenizer import Tokenizer
from bisquit.transformer import TransformerConfig

Write = Callable[..., Path]


@pytest.fixture
def tokenizer_file(make_tokenizer, tmp_path: Path) -> Path:
    save_tokenizer(make_tokenizer(), tmp_path / "tokenizer.safetensors")
    return tmp_path / "tokenizer.safetensors"


@pytest.fixture
def prior_file(make_prior, tmp_path: Path) -> Path:
    save_prior(SavedPrior(make_prior(), (8, 12), "0123456789abcdef"), tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def description(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["bisquit"])


def metadata_of(path: Path) -> dict[str, str]:
    return {"bisquit": json.dumps(description(path))}


def rewrite(path: Path, **changes: Any) -> None:
    """Change parts of the description of a file, the weights kept; None takes a part away."""
    changed = {key: value for key, value in (description(path) | changes).items() if value is not None}
    save_file(load_file(path), path, metadata={"bisquit": json.dumps(changed)})


def refusal(load: Callable[[Path], object], path: Path) -> str:
    """Do what is to be refused, and return the one line that says why."""
    with pytest.raises(ModelError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def equal_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_tokenizer_comes_back_as_it_was(make_tokenizer, tmp_path: Path):
    saved = make_tokenizer(patch_size=5, depth=2, bits=7, sample_entropy_weight=0.25).train()
    save_tokenizer(saved, tmp_path / "new" / "folder" / "t")
    loaded = load_tokenizer(tmp_path / "new" / "folder" / "t")
    assert isinstance(loaded, Tokenizer)
    assert loaded.config == saved.config
    assert equal_weights(loaded, saved)
    assert not loaded.training


@pytest.mark.parametrize("positions", ["none", "learned", "row-column", "rotary"])
def test_a_prior_comes_back_as_it_was_with_what_it_belongs_to(make_prior, tmp_path: Path, positions: str):
    saved = make_prior(bits=5, grid=(3, 2), positions=positions, dropout=0.1).train()
    save_prior(SavedPrior(saved, (11, 8), "feed"), tmp_path / "p")
    prior, frame_size, fingerprint, conditions = load_prior(tmp_path / "p")
    assert conditions == Conditions()
    assert isinstance(prior, RasterPrior)
    assert (prior.config, prior.bits, prior.grid) == (saved.config, 5, (3, 2))
    assert equal_weights(prior, saved)
    assert not prior.training
    assert (frame_size, fingerprint) == ((11, 8), "feed")
    tokens = torch.randint(32, (1, 3, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(prior.logits(tokens), saved.eval().logits(tokens))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_saved_in_half_come_back_as_float32(make_tokenizer, tmp_path: Path, dtype: torch.dtype):
    saved = make_tokenizer()
    save_tokenizer(saved, tmp_path / "half", dtype)
    save_tokenizer(saved, tmp_path / "whole")
    assert (tmp_path / "half").stat().st_size < (tmp_path / "whole").stat().st_size
    loaded = load_tokenizer(tmp_path / "half")
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, saved.state_dict()[name].to(dtype).float())


def test_int8_rounds_each_row_of_a_matrix_as_the_engine_does(make_prior, tmp_path: Path):
    saved = make_prior(bits=5, grid=(3, 2), neighbours=2)
    save_prior(SavedPrior(saved, (11, 8), "feed"), tmp_path / "p", torch.int8)
    loaded = load_prior(tmp_path / "p").prior
    assert isinstance(loaded, RasterPrior)
    for name, value in loaded.state_dict().items():
        whole = saved.state_dict()[name]
        if whole.ndim < 2:
            assert torch.equal(value, whole.half().float())
        else:
            step = whole.flatten(1).abs().amax(dim=1) / 127
            assert ((value - whole).flatten(1).abs().amax(dim=1) <= 0.501 * step).all()
    for ours, theirs in zip(IntegerPrior(loaded).blocks, IntegerPrior(saved).blocks, strict=True):
        assert torch.equal(ours.qkv.codes, theirs.qkv.codes)


def test_int8_keeps_the_shape_of_convolutions_and_is_small(make_tokenizer, tmp_path: Path):
    saved = make_tokenizer(width=32)
    save_tokenizer(saved, tmp_path / "bytes", torch.int8)
    save_tokenizer(saved, tmp_path / "half", torch.float16)
    assert (tmp_path / "bytes").stat().st_size < 0.7 * (tmp_path / "half").stat().st_size
    loaded = load_tokenizer(tmp_path / "bytes")
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    assert {name: value.shape for name, value in loaded.state_dict().items()} == {
        name: value.shape for name, value in saved.state_dict().items()
    }


@pytest.mark.parametrize("steps", [None, torch.ones(1), torch.ones(2, 2)], ids=["none", "one", "square"])
def test_int8_without_a_step_for_each_row_is_refused(make_tokenizer, tmp_path: Path, steps: torch.Tensor | None):
    path = tmp_path / "t"
    save_tokenizer(make_tokenizer(), path, torch.int8)
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(checkpoint.STEP))
    del tensors[name]
    save_file(tensors | ({} if steps is None else {name: steps}), path, metadata=metadata_of(path))
    assert "do not fit together" in refusal(load_tokenizer, path)


def test_weights_that_are_not_finite_cannot_be_rounded(make_tokenizer, tmp_path: Path):
    broken = make_tokenizer()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        save_tokenizer(broken, tmp_path / "t", torch.int8)
    assert not (tmp_path / "t").exists()


def test_files_are_safetensors_that_say_what_they_are(tokenizer_file: Path, prior_file: Path):
    assert {key: description(tokenizer_file)[key] for key in ("format", "part")} == {"format": 1, "part": "tokenizer"}
    assert {key: description(prior_file)[key] for key in ("format", "part")} == {"format": 1, "part": "prior"}


def test_the_same_model_is_the_same_bytes(make_tokenizer, tokenizer_file: Path, tmp_path: Path):
    save_tokenizer(make_tokenizer(), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == tokenizer_file.read_bytes()


def test_a_missing_file_is_named(tmp_path: Path):
    assert "is not there" in refusal(load_tokenizer, tmp_path / "tokenizer.safetensors")
    assert "is not there" in refusal(load_prior, tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_damaged(tokenizer_file: Path, share: float):
    content = tokenizer_file.read_bytes()
    tokenizer_file.write_bytes(content[: int(share * len(content))])
    assert "cut or damaged" in refusal(load_tokenizer, tokenizer_file)


def test_a_text_file_is_no_model(tmp_path: Path):
    path = tmp_path / "tokenizer.safetensors"
    path.write_text("not a model\n" * 100)
    assert "cannot be read as safetensors" in refusal(load_tokenizer, path)


def test_a_pickle_under_our_name_is_not_run(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "tokenizer.safetensors"
    torch.save({"weights": Trap()}, path)
    assert "cannot be read as safetensors" in refusal(load_tokenizer, path)
    assert not (tmp_path / "sprung").exists()


def test_another_format_version_is_named(tokenizer_file: Path):
    rewrite(tokenizer_file, format=2)
    assert "is of format version 2: this bisquit reads version 1" in refusal(load_tokenizer, tokenizer_file)


def test_another_part_is_named(tokenizer_file: Path, prior_file: Path):
    assert "holds a tokenizer, not a prior" in refusal(load_prior, tokenizer_file)
    assert "holds a prior, not a tokenizer" in refusal(load_tokenizer, prior_file)


@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"bisquit": "{"}, {"bisquit": "[1]"}, {"bisquit": "{}"}])
def test_safetensors_of_others_are_refused(tmp_path: Path, metadata: dict[str, str] | None):
    path = tmp_path / "tokenizer.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    assert "none that bisquit wrote" in refusal(load_tokenizer, path)


def test_weights_that_do_not_fit_the_configuration_are_refused(make_tokenizer, tokenizer_file: Path, prior_file: Path):
    rewrite(tokenizer_file, config=make_tokenizer(bits=4).config.to_dict())
    assert "do not fit together" in refusal(load_tokenizer, tokenizer_file)
    rewrite(prior_file, bits=4)
    assert "do not fit together" in refusal(load_prior, prior_file)


def test_a_tokenizer_without_its_configuration_is_refused(tokenizer_file: Path):
    rewrite(tokenizer_file, config=None)
    refusal(load_tokenizer, tokenizer_file)


@pytest.mark.parametrize("missing", ["config", "bits", "grid", "frame_size", "tokenizer"])
def test_a_prior_without_a_part_of_its_description_is_refused(prior_file: Path, missing: str):
    rewrite(prior_file, **{missing: None})
    assert missing in refusal(load_prior, prior_file)


@pytest.mark.parametrize("config", [{"quantizer": {"bits": 33}}, {"no_such": 1}, {"autoencoder": 5}, 5, [1]], ids=str)
def test_a_tokenizers_configuration_that_is_none_is_refused(tokenizer_file: Path, config: object):
    rewrite(tokenizer_file, config=config)
    refusal(load_tokenizer, tokenizer_file)


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": "many"},
        {"bits": 3.0},
        {"bits": 33},
        {"grid": [2]},
        {"grid": [0, 3]},
        {"grid": ["2", 3]},
        {"frame_size": ["a", 1]},
        {"config": {"positions": "sinus"}},
        {"config": 5},
    ],
    ids=str,
)
def test_a_priors_description_that_is_none_is_refused(prior_file: Path, changes: dict[str, Any]):
    rewrite(prior_file, **changes)
    refusal(load_prior, prior_file)


def test_a_failure_while_saving_leaves_the_old_file_and_nothing_else(
    make_tokenizer, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    before = tokenizer_file.read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", fail)
    assert "No space left" in refusal(lambda path: save_tokenizer(make_tokenizer(seed=1), path), tokenizer_file)
    assert tokenizer_file.read_bytes() == before
    assert list(tokenizer_file.parent.iterdir()) == [tokenizer_file]


def told_prior(condition_size: int) -> RasterPrior:
    transformer = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
    return RasterPrior(RasterConfig(transformer=transformer, condition_size=condition_size), 3, (2, 3))


def test_what_safetensors_leaves_beside_a_file_is_hidden(
    tokenizer_file: Path, make_tokenizer, monkeypatch: pytest.MonkeyPatch
):
    """It writes a temporary file of its own, which a process that is killed leaves; here, as it were, each time."""
    folders = []

    def save_and_leave(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        (path.parent / ".tmpAbCdEf").write_bytes(b"half")
        folders.append(path.parent)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", save_and_leave)
    save_tokenizer(make_tokenizer(), tokenizer_file)
    assert [folder.name.startswith(PARTIAL) and folder.parent == tokenizer_file.parent for folder in folders] == [True]
    assert [path.name for path in tokenizer_file.parent.iterdir()] == [tokenizer_file.name]


def test_what_a_prior_can_be_asked_for_comes_back(tmp_path: Path):
    conditions = Conditions(("icy", "sand"))
    save_prior(SavedPrior(told_prior(2), (8, 12), "feed", conditions), tmp_path / "p")
    loaded = load_prior(tmp_path / "p")
    assert loaded.conditions == conditions
    assert loaded.prior.condition_size == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_what_reads_words_comes_back_to_the_bit(tmp_path: Path, letters: str, dtype: torch.dtype):
    reader = learn_to_read(letters, [("ice",), ("sand",)])
    conditions = Conditions(("icy", "sand"), reader)
    save_prior(SavedPrior(told_prior(2), (8, 12), "feed", conditions), tmp_path / "p", dtype)
    loaded = load_prior(tmp_path / "p").conditions.reader
    assert loaded is not None
    assert loaded.fingerprint() == reader.fingerprint()


@pytest.mark.parametrize("damage", [{"classes": [1, 2]}, {"classes": "ab"}, {"text_encoder": "none such"}])
def test_a_description_of_conditions_that_is_none_is_refused(tmp_path: Path, letters: str, damage: dict[str, object]):
    conditions = Conditions(("icy", "sand"), learn_to_read(letters, [("ice",), ("sand",)]))
    save_prior(SavedPrior(told_prior(2), (8, 12), "feed", conditions), tmp_path / "p")
    tensors, description = read_tensors(tmp_path / "p", "prior")
    write_tensors(tmp_path / "q", tensors, {**description, "conditions": {**description["conditions"], **damage}})
    assert "describes no prior" in refusal(load_prior, tmp_path / "q")


def test_conditions_of_another_size_than_the_priors_are_refused(tmp_path: Path):
    save_prior(SavedPrior(told_prior(3), (8, 12), "feed", Conditions(("icy", "sand"))), tmp_path / "p")
    assert "conditions of 3 numbers" in refusal(load_prior, tmp_path / "p")


def test_an_any_order_prior_comes_back(tmp_path: Path):
    transformer = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
    saved = AnyOrderPrior(AnyOrderConfig(transformer=transformer, neighbours=4), 3, (2, 3)).eval()
    save_prior(SavedPrior(saved, (8, 12), "feed"), tmp_path / "p")
    prior = load_prior(tmp_path / "p").prior
    assert isinstance(prior, AnyOrderPrior)
    assert prior.config == saved.config
    assert equal_weights(prior, saved)


def test_a_masked_prior_comes_back(tmp_path: Path):
    transformer = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
    saved = MaskedPrior(MaskedConfig(transformer=transformer, neighbours=4, masking="cosine"), 3, (2, 3)).eval()
    save_prior(SavedPrior(saved, (8, 12), "feed"), tmp_path / "p")
    prior = load_prior(tmp_path / "p").prior
    assert isinstance(prior, MaskedPrior)
    assert prior.config == saved.config
    assert equal_weights(prior, saved)
