"""Models on the Hub, by a server in this process that speaks as much of its language as a download takes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from tests.hub_driver import FakeApi, FakeHub

from bisquit.errors import ModelError
from bisquit.generate import Pipeline, load
from bisquit.hub import HubId, download


def point_to(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the Hub's client ask a port of this machine: a constant is made of the other when it is imported."""
    endpoint = f"http://127.0.0.1:{port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    point_to(server.server_port, monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pipeline(make_tokenizer, make_prior) -> Pipeline:
    return Pipeline(make_tokenizer(), make_prior(), (7, 11), card="# A castle\n")


def serve(hub: FakeHub, pipeline: Pipeline, folder: Path) -> None:
    pipeline.save_pretrained(folder)
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("me/castle", HubId("me/castle")),
        ("hf://me/castle@v1.0", HubId("me/castle", "v1.0")),
        ("me/castle@refs/pr/1", HubId("me/castle", "refs/pr/1")),
        *((text, None) for text in ("castle", "./castle", "../castle", "a/b/c", "me/castle@", "/me/castle", "me/c d")),
    ],
)
def test_a_name_is_an_owner_a_slash_a_name_and_perhaps_a_revision(text: str, meant: HubId | None):
    assert HubId.parse(text) == meant


def test_a_model_comes_from_the_hub_once_and_then_without_it(hub: FakeHub, pipeline: Pipeline, tmp_path: Path):
    serve(hub, pipeline, tmp_path / "served")
    hub.files["other.bin"] = b"of no use"
    there = Pipeline.from_pretrained("me/castle")
    np.testing.assert_array_equal(there.sample(2), pipeline.sample(2))
    assert there.card == "# A castle\n"
    assert not any(path.endswith("other.bin") for path in hub.asked)
    np.testing.assert_array_equal(load("hf://me/castle").sample(1), pipeline.sample(1))


def test_a_download_is_read_again_where_there_is_no_network(
    hub: FakeHub, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    serve(hub, pipeline, tmp_path / "served")
    load("hf://me/castle")
    point_to(1, monkeypatch)  # where nobody listens
    np.testing.assert_array_equal(load("hf://me/castle").sample(1), pipeline.sample(1))
    with pytest.raises(ModelError, match=r"me/tower cannot be had.*it cannot be reached") as error:
        load("hf://me/tower")
    assert "\n" not in str(error.value)


def test_a_model_that_the_hub_does_not_have_is_one_line(hub: FakeHub):
    with pytest.raises(ModelError, match="me/tower cannot be had from the Hugging Face Hub: there is no such") as error:
        Pipeline.from_pretrained("me/tower")
    assert "\n" not in str(error.value)


def test_a_repository_of_something_else_is_refused(hub: FakeHub):
    hub.files = {"README.md": b"# Another's"}
    with pytest.raises(ModelError, match=r"has no tokenizer.safetensors: it is no model of bisquit's"):
        load("hf://me/castle")


def test_nothing_is_asked_of_the_hub_for_what_is_here(hub: FakeHub, pipeline: Pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline.save_pretrained("me/castle")
    np.testing.assert_array_equal(Pipeline.from_pretrained("me/castle").sample(1), pipeline.sample(1))
    assert Pipeline.from_pretrained("seed").frame_size == (100, 150)
    for name in ("me/tower", "nothing"):
        with pytest.raises(ModelError, match="neither a folder nor a model that ships"):
            load(name)
    with pytest.raises(ModelError, match="neither a folder nor a model that ships"):
        Pipeline.from_pretrained("./me/tower")
    assert hub.asked == []


def test_without_the_client_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"pip install 'bisquit\[hub\]'"):
        download(HubId("me/castle"))


def test_a_model_is_saved_whole_with_its_card_or_not_at_all(
    pipeline: Pipeline, make_tokenizer, make_prior, tmp_path: Path
):
    pipeline.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.tokenizer.fingerprint() == pipeline.tokenizer.fingerprint()
    assert (again.frame_size, again.card) == ((7, 11), "# A castle\n")
    with pytest.raises(ModelError, match="is not empty"):
        pipeline.save_pretrained(tmp_path / "saved")
    with pytest.raises(ModelError, match="pass frame_size"):
        Pipeline(make_tokenizer(), make_prior()).save_pretrained(tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_shipped_model_is_the_same_when_it_was_saved(tmp_path: Path):
    seed = load("seed")
    seed.save_pretrained(tmp_path / "seed")
    assert load(tmp_path / "seed").card == seed.card
    assert load(tmp_path / "seed").tokenizer.fingerprint() == seed.tokenizer.fingerprint()
    assert "# bisquit: `seed`" in seed.card


def test_a_model_goes_up_as_one_commit(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    assert pipeline.push_to_hub("me/castle@next", private=True, message="First") == "https://hub/me/castle"
    taken = FakeApi.taken
    assert taken["files"] == {"tokenizer.safetensors", "prior.safetensors", "README.md"}
    assert (taken["repo_id"], taken["revision"], taken["commit_message"]) == ("me/castle", "next", "First")
    assert (taken["branch_of"], taken["private"], taken["card"]) == ("me/castle", True, pipeline.card)
    with pytest.raises(ModelError, match="no name on the Hugging Face Hub"):
        pipeline.push_to_hub("castle")
    pipeline.card = ""
    with pytest.raises(ModelError, match="no card"):
        pipeline.push_to_hub("me/castle")


def test_a_hub_that_takes_nothing_is_one_line(pipeline: Pipeline, hub: FakeHub):
    with pytest.raises(ModelError, match="me/castle cannot be written to the Hugging Face Hub") as error:
        pipeline.push_to_hub("me/castle")
    assert "\n" not in str(error.value)
