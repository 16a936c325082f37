"""Training runs as they go: found by their records, read by TensorBoard's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.studio.driver import API, decoded
from torch.utils.tensorboard import SummaryWriter

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.errors import ConfigError
from bisquit.presets import PRESETS
from bisquit.record import RunRecord
from bisquit.studio.app import create_app
from bisquit.tokenizer import TokenizerConfig
from bisquit.training import train_tokenizer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two runs, one of them deeper, and of what is none."""
    root = tmp_path / "runs"
    for name, stage, finished in (("tokenizer", "tokenizer", True), ("games/model", "prior", False)):
        folder = root / name
        folder.mkdir(parents=True)
        RunRecord(stage, "demo", {"training": {"epochs": 2}}, {}, "float32", {}, finished=finished).save(folder)
    (root / "empty").mkdir()
    (root / "other").mkdir()
    (root / "other" / "run.json").write_text('{"not": "ours"}')
    (tmp_path / "secret").mkdir()
    RunRecord("prior", None, {}, {}, "float32", {}).save(tmp_path / "secret")
    (root / "link").symlink_to(tmp_path / "secret")
    return root


def write(folder: Path, step: int, level: int) -> None:
    with SummaryWriter(folder / "logs") as writer:
        writer.add_scalar("train/loss", step / 2, step)
        writer.add_scalar("valid/loss", float("nan"), step)
        writer.add_image("samples", np.full((6, 8, 3), level, dtype=np.uint8), step, dataformats="HWC")


def test_runs_are_listed_and_nothing_else(open_studio, root: Path):
    found = open_studio(runs=root).get(f"{API}/runs").json()["runs"]
    assert {(run["name"], run["stage"], run["finished"]) for run in found} == {
        ("tokenizer", "tokenizer", True),
        ("games/model", "prior", False),
    }


def test_curves_and_pictures_grow_with_the_run(open_studio, root: Path):
    client, folder = open_studio(runs=root), root / "games" / "model"
    for step, level in ((1, 10), (2, 200)):
        write(folder, step, level)
        answer = client.get(f"{API}/runs/curves", params={"name": "games/model"})
        run = answer.json()
        assert [point["step"] for point in run["curves"]["train/loss"]] == list(range(1, step + 1))
        assert run["curves"]["train/loss"][-1]["value"] == step / 2
        assert run["curves"]["valid/loss"][-1]["value"] is None
        assert run["pictures"] == ["samples"]
        assert run["recipe"] == {"training": {"epochs": 2}}
        picture = client.get(f"{API}/runs/picture", params={"name": "games/model", "tag": "samples"})
        assert picture.headers["content-type"] == "image/png"
        assert (decoded(picture.content) == level).all()
    first = client.get(f"{API}/runs").json()["runs"][0]
    assert first["name"] == "games/model"


def test_a_run_without_logs_has_no_curves(open_studio, root: Path):
    run = open_studio(runs=root).get(f"{API}/runs/curves", params={"name": "tokenizer"}).json()
    assert (run["curves"], run["pictures"]) == ({}, [])


@pytest.mark.parametrize("name", ["../secret", "link", "games", "/etc", "", "tokenizer/..", "\x00", "other"])
def test_names_of_no_run_are_not_found(open_studio, root: Path, name: str):
    client = open_studio(runs=root)
    for path in ("curves", "picture"):
        answer = client.get(f"{API}/runs/{path}", params={"name": name, "tag": "samples"})
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
    missing = client.get(f"{API}/runs/picture", params={"name": "tokenizer", "tag": "../samples"})
    assert missing.status_code == 404


def test_without_a_folder_there_are_no_runs(client):
    assert client.get(f"{API}/runs").json() == {"runs": []}


def test_a_folder_of_runs_must_be_there(make_config, tmp_path: Path):
    with pytest.raises(ConfigError, match="--runs"):
        create_app(make_config(tmp_path / "nothing"))


def test_what_training_writes_is_read(open_studio, tmp_path: Path, make_noise):
    recipe = PRESETS["demo"].tokenizer
    tiny = TokenizerConfig(AutoEncoderConfig(patch_size=4, width=8, depth=1))
    small = recipe.replace(tokenizer=tiny, training=recipe.training.replace(epochs=1, batch_size=4))
    train_tokenizer(small, make_noise(8), make_noise(4, seed=1), tmp_path / "runs" / "mine")
    client = open_studio(runs=tmp_path / "runs")
    (run,) = client.get(f"{API}/runs").json()["runs"]
    assert (run["name"], run["stage"], run["finished"]) == ("mine", "tokenizer", True)
    found = client.get(f"{API}/runs/curves", params={"name": "mine"}).json()
    assert len(found["curves"]["valid/loss"]) == 1
    assert found["pictures"] == ["reconstructions"]
    assert json.dumps(found["recipe"])
    picture = client.get(f"{API}/runs/picture", params={"name": "mine", "tag": "reconstructions"})
    assert decoded(picture.content).ndim == 3
