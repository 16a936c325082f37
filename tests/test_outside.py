"""What fuzzing found in files from outside, one by one: each is one clear error, without memory, time or harm."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bisquit.augmenting import Count
from bisquit.captions import load_captions
from bisquit.checkpoint import SavedPrior, load_prior, load_tokenizer, save_prior, save_tokenizer
from bisquit.errors import BisquitError, FrameError, ModelError, RunError
from bisquit.frames import load_frames
from bisquit.frames.cache import cached_frames
from bisquit.frames.listing import list_files
from bisquit.frames.pictures import write_frame
from bisquit.painted_set import JOURNAL, write_set
from bisquit.priors import MaskedConfig, PyramidConfig, RasterConfig, build_prior
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.transformer import TransformerConfig

NESTED = "[" * 100_000


def redescribe(path: Path, **changes: Any) -> None:
    """Have a file of ours say something else of itself."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        said = json.loads((file.metadata() or {})["bisquit"])
    save_file(tensors, path, metadata={"bisquit": json.dumps(said | changes)})


def test_a_description_of_a_huge_tokenizer_takes_no_memory(tmp_path: Path, make_tokenizer) -> None:
    path, tokenizer = tmp_path / "tokenizer.safetensors", make_tokenizer()
    save_tokenizer(tokenizer, path)
    config = tokenizer.config.to_dict()
    config["autoencoder"] |= {"width": 8192, "depth": 64}  # 600 GB
    redescribe(path, config=config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="weights and configuration do not fit together"):
        load_tokenizer(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bits": 10**9}, "from 1 to 32"),
        ({"bits": True}, "from 1 to 32"),
        ({"bits": "3"}, "from 1 to 32"),
        ({"grid": [10**5, 10**5]}, "from 1 to 16,384"),
        ({"grid": [2**14, 2**14]}, "more than 16,384 tokens"),
        ({"grid": [-2, -3]}, "from 1 to"),
        ({"frame_size": [8, float("inf")]}, "from 1 to"),
        ({"frame_size": [8.5, 12]}, "from 1 to"),
        ({"frame_size": "88"}, "from 1 to"),
    ],
)
def test_a_prior_of_no_fit_size_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = tmp_path / "prior.safetensors"
    shape = RasterConfig(transformer=TransformerConfig(4, 1, 1, 4), positions="none")
    save_prior(SavedPrior(build_prior(shape, 3, (2, 3)), (8, 12), "0" * 16), path)
    redescribe(path, **changes)
    with pytest.raises(ModelError, match=why):
        load_prior(path)


def test_a_pyramid_of_too_many_places_is_refused() -> None:
    with pytest.raises(BisquitError, match="at most 64"):
        PyramidConfig(scales=((1, 1),) * 65)
    with pytest.raises(BisquitError, match="at most 4,096 places"):
        build_prior(PyramidConfig(scales=((64, 65),)), 3, (64, 65))


@pytest.mark.parametrize("config", [RasterConfig(), MaskedConfig(), PyramidConfig(scales=((1, 1), (1, 5)))])
def test_a_shape_that_fits_is_built_with_its_weights(tmp_path: Path, config: Any) -> None:
    """What is made of a description is bounded by its weights; all that is no weight is there too."""
    config = config.replace(transformer=TransformerConfig(4, 1, 1, 4))
    prior = build_prior(config, 3, (2, 3))
    save_prior(SavedPrior(prior, (8, 12), "0" * 16), tmp_path / "prior.safetensors")
    loaded = load_prior(tmp_path / "prior.safetensors").prior
    assert loaded.fingerprint() == prior.fingerprint()
    for (name, ours), (_, theirs) in zip(loaded.named_buffers(), prior.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_message_shows_nothing_but_printable_text() -> None:
    assert str(BisquitError("a\n\x1b[31mb\udc80 é")) == "a  [31mb  é"


@pytest.mark.parametrize("text", [NESTED, "[]", '{"bisquit": 1}', NESTED.replace("[", '{"a":')])
def test_a_record_of_nonsense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(RunError, match="is not the record of a run"):
        RunRecord.load(tmp_path)


def test_captions_nested_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text(f"a = {NESTED}")
    with pytest.raises(FrameError, match="is no table of captions"):
        load_captions(path)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        NESTED.encode(),
        b"7",
        b"{}",
        b'{"track": "ice", "count": {"painted": "x"}, "rows": []}',
        b'{"track": "ice", "count": {"painted": -1}, "rows": []}',
        b'{"track": "ice", "count": {}, "rows": 0}',
        b'{"track": [], "count": {}, "rows": []}',
        b"\xff",
    ],
)
def test_a_damaged_journal_is_refused(tmp_path: Path, line: bytes) -> None:
    def paint(name: str, begun: Count) -> Any:
        raise AssertionError("nothing is painted")

    (tmp_path / JOURNAL).write_bytes(b'{"seed": 0}\n' + line + b"\n")
    with pytest.raises(FrameError, match="is damaged: name a new folder"):
        write_set(paint, ["ice"], tmp_path, {}, {"seed": 0})
    assert {path.name for path in tmp_path.iterdir()} <= {JOURNAL, ".lock", ".lock-holder"}


def test_lengths_that_lead_out_of_a_table_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow trusts what a file says of where its texts lie: memory beside it would be read."""
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    table = pa.table({"image": pa.array([b"1", b"2"]), "track": ["kart", "tux"]})
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    sound = path.read_bytes()
    offsets = b"".join(offset.to_bytes(4, "little") for offset in (0, 4, 7))
    assert sound.count(offsets) == 1
    path.write_bytes(sound.replace(offsets, offsets[:4] + (2**30).to_bytes(4, "little") + offsets[8:]))
    with pytest.raises(FrameError, match=r"a\.arrow is damaged"):
        load_frames(path)


def test_a_column_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"1"], "track": ["ice"]}), path)
    path.write_bytes(path.read_bytes().replace(b"track", b"tr\x97ck"))
    with pytest.raises(FrameError, match=r"a\.parquet is no readable Parquet file"):
        load_frames(path, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["a.png"]},
        {"labels": [0, 0]},
        {"labels": [7]},
        {"labels": [-2]},
        {"groups": [0]},
        {"classes": [1]},
        {"skipped": [None]},
        {"shape": [1, 6, 9]},
    ],
)
def test_an_entry_of_the_cache_that_does_not_agree_with_itself_is_made_anew(
    tmp_path: Path, make_noise, changes: dict[str, Any]
) -> None:
    write_frame(make_noise(1)[0], tmp_path / "ice" / "a.png")
    write_frame(make_noise(1, seed=1)[0], tmp_path / "ice" / "b.png")

    def read() -> Any:
        return cached_frames(list_files(tmp_path / "ice"), None, False, tmp_path / "cache")

    wanted = read()
    (known,) = (tmp_path / "cache" / "frames").glob("*/frames.json")
    sound = json.loads(known.read_text())
    known.write_text(json.dumps(sound | changes))
    found = read()
    assert (found.names, found.classes) == (wanted.names, wanted.classes)
    assert found.labels.tolist() == wanted.labels.tolist()
    assert json.loads(known.read_text()) == sound
