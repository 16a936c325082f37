"""The gallery: what is kept stays, with what paints it again."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.studio.driver import API, HOST, MODEL, encoded, events, frame, upload

from bisquit.checkpoint import PRIOR_FILE, TOKENIZER_FILE, load_prior, save_prior
from bisquit.errors import ConfigError, FrameError
from bisquit.frames import encode_png
from bisquit.studio.app import create_app
from bisquit.studio.gallery import Gallery, digest
from bisquit.studio.studio import StudioConfig


def kept(client: TestClient, **asked: Any) -> tuple[str, bytes]:
    """Have a picture painted and kept; return its id and what was answered."""
    answer = client.post(f"{API}/sample", json={"model": MODEL, "keep": True, **asked})
    assert answer.status_code == 200, answer.text
    return answer.headers["bisquit-id"], answer.content


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.png")}


def test_nothing_is_kept_unless_asked_for(client: TestClient, tmp_path: Path):
    answer = client.post(f"{API}/sample", json={"model": MODEL})
    assert "bisquit-id" not in answer.headers
    assert client.get(f"{API}/gallery").json() == {"pictures": [], "next": None, "total": 0}
    assert files_in(tmp_path) == set()


def test_what_is_kept_survives_a_restart(make_config, tmp_path: Path):
    def opened() -> TestClient:
        return TestClient(create_app(make_config()), base_url=f"http://{HOST}")

    with opened() as client:
        identity, png = kept(client, seed=5, **{"class": "ice"})
    with opened() as client:
        entry = client.get(f"{API}/gallery/{identity}").json()
        assert (entry["height"], entry["width"]) == (19, 30)
        assert (entry["recipe"]["kind"], entry["recipe"]["asked"]["class"]) == ("sample", "ice")
        answer = client.get(f"{API}/gallery/{identity}/picture")
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == png
        again = client.post(f"{API}/gallery/{identity}/again")
        assert again.content == png
        assert again.headers["bisquit-same"] == "true"
    assert (tmp_path / "data" / "pictures" / f"{identity}.png").read_bytes() == png


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("inpaint", {"seed": "2", "candidates": "3"}),
        ("extend", {"left": "5", "guidance": "2", "class": "sand"}),
        ("vary", {"share": "0.25"}),
        ("blend", {"band": "4", "top_p": "0.9"}),
    ],
)
def test_every_picture_of_an_edit_is_painted_again(client: TestClient, kind: str, asked: dict[str, str]):
    mask = np.zeros((19, 30, 3), dtype=np.uint8)
    mask[6:13, 9:17] = 255
    names = {"inpaint": ("picture", "mask"), "blend": ("first", "second")}.get(kind, ("picture",))
    files = {name: encoded(mask if name == "mask" else frame(i)) for i, name in enumerate(names)}
    data = {"model": MODEL, "keep": "true", "n": "2", "answer": "json", **asked}
    answer = client.post(f"{API}/edit/{kind}", files=upload(**files), data=data)
    pictures = answer.json()["pictures"]
    assert pictures[0]["png"] != pictures[1]["png"]
    for picture in pictures:
        again = client.post(f"{API}/gallery/{picture['id']}/again")
        assert again.headers["bisquit-same"] == "true"
        assert again.content == client.get(f"{API}/gallery/{picture['id']}/picture").content


def test_the_third_picture_of_a_seed_and_a_stream_are_painted_again(client: TestClient):
    asked = {"model": MODEL, "n": 3, "answer": "json", "keep": True, "precision": "int8"}
    third = client.post(f"{API}/sample", json=asked).json()["pictures"][2]["id"]
    streamed = events(client, {"model": MODEL, "keep": True, "seed": 9})[-1][1]["id"]
    for identity in (third, streamed):
        assert client.post(f"{API}/gallery/{identity}/again").headers["bisquit-same"] == "true"


def test_pages_show_all_the_latest_first(client: TestClient):
    made = [kept(client, seed=seed)[0] for seed in range(5)]
    found, before, sizes = [], None, []
    while True:
        page = client.get(f"{API}/gallery", params={"limit": 2} | ({"before": before} if before else {})).json()
        found += [picture["id"] for picture in page["pictures"]]
        sizes.append(len(page["pictures"]))
        assert page["total"] == 5
        if (before := page["next"]) is None:
            break
    assert found == made[::-1]
    assert sizes == [2, 2, 1]


def test_what_is_deleted_is_gone_and_its_inputs_once_nothing_needs_them(client: TestClient, tmp_path: Path):
    picture = upload(picture=encoded(frame()))
    data = {"model": MODEL, "keep": "true", "answer": "json", "n": "2"}
    first, second = client.post(f"{API}/edit/vary", files=picture, data=data).json()["pictures"]
    name = f"inputs/{digest(encode_png(frame()))}.png"
    assert files_in(tmp_path / "data") == {f"pictures/{one['id']}.png" for one in (first, second)} | {name}
    assert client.delete(f"{API}/gallery/{first['id']}").status_code == 204
    assert files_in(tmp_path / "data") == {f"pictures/{second['id']}.png", name}
    assert client.get(f"{API}/gallery/{first['id']}").status_code == 404
    assert client.delete(f"{API}/gallery/{first['id']}").status_code == 404
    assert client.delete(f"{API}/gallery/{second['id']}").status_code == 204
    assert files_in(tmp_path / "data") == set()


@pytest.mark.parametrize("name", ["x", "..%2f..%2fetc%2fpasswd", "%00", "A" * 32, "' OR 1=1 --", "0" * 33])
def test_names_that_are_none_are_refused(client: TestClient, name: str):
    kept(client)
    for method, path in (("GET", ""), ("GET", "/picture"), ("DELETE", ""), ("POST", "/again")):
        answer = client.request(method, f"{API}/gallery/{name}{path}")
        assert answer.status_code in (404, 405, 422)
        assert list(answer.json()) == ["error"]
    assert client.get(f"{API}/gallery", params={"before": name}).status_code == 422
    assert client.get(f"{API}/gallery").json()["total"] == 1


def test_names_of_no_picture_are_not_found(client: TestClient):
    for method, path in (("GET", ""), ("GET", "/picture"), ("DELETE", ""), ("POST", "/again")):
        assert client.request(method, f"{API}/gallery/{'0' * 32}{path}").status_code == 404
    assert client.get(f"{API}/gallery", params={"before": "0" * 32}).status_code == 404


def test_a_model_whose_weights_changed_paints_nothing_again(model_folder: Path, tmp_path: Path):
    folder = tmp_path / "own"
    shutil.copytree(model_folder, folder)
    config = StudioConfig(tmp_path / "data", models={MODEL: folder})
    with TestClient(create_app(config), base_url=f"http://{HOST}") as client:
        identity, _ = kept(client)
    saved = load_prior(folder / PRIOR_FILE)
    next(saved.prior.parameters()).data += 1
    save_prior(saved, folder / PRIOR_FILE)
    assert (folder / TOKENIZER_FILE).is_file()
    with TestClient(create_app(config), base_url=f"http://{HOST}") as client:
        answer = client.post(f"{API}/gallery/{identity}/again")
        assert answer.status_code == 409
        assert "weights have changed" in answer.json()["error"]


def test_a_full_gallery_keeps_no_more(open_studio):
    client = open_studio(gallery=1)
    kept(client)
    answer = client.post(f"{API}/sample", json={"model": MODEL, "keep": True})
    assert answer.status_code == 422
    assert "the gallery is full" in answer.json()["error"]
    assert events(client, {"model": MODEL, "keep": True})[-1][0] == "error"


def test_a_prompt_stays_text(client: TestClient):
    gallery, recipe = client.app.app.app.state.studio.gallery, {"asked": {"prompt": "<script>alert(1)</script>"}}  # type: ignore[attr-defined]
    identity = gallery.add(encoded(frame()), (19, 30), recipe, {})
    answer = client.get(f"{API}/gallery/{identity}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["recipe"] == recipe


def test_files_of_no_row_are_swept_and_those_of_a_row_stay(tmp_path: Path):
    gallery = Gallery(tmp_path, most=9)
    identity = gallery.add(b"png", (1, 1), {}, {digest(b"in"): b"in"})
    (tmp_path / "pictures" / f"{'0' * 32}.png").write_bytes(b"left by a crash")
    (tmp_path / "inputs" / f"{'0' * 64}.png").write_bytes(b"left by a crash")
    again = Gallery(tmp_path, most=9)
    assert files_in(tmp_path) == {f"pictures/{identity}.png", f"inputs/{digest(b'in')}.png"}
    assert again.png(identity) == b"png"
    (tmp_path / "pictures" / f"{identity}.png").unlink()
    with pytest.raises(FrameError, match="has lost a file"):
        again.png(identity)


def test_many_may_keep_and_delete_at_once(tmp_path: Path):
    gallery = Gallery(tmp_path, most=100)

    def work(number: int) -> str:
        identity = gallery.add(b"png", (1, 1), {"number": number}, {digest(b"in"): b"in"})
        if number % 2:
            gallery.delete(identity)
        return identity

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(40)))
    page = gallery.page(100)
    assert {entry.id for entry in page.entries} == set(made[::2])
    assert page.total == 20
    assert gallery.input(digest(b"in")) == b"in"


def test_a_folder_that_cannot_be_a_gallery_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot hold a gallery"):
        Gallery(tmp_path / "file", most=1)
    (tmp_path / "gallery.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(ConfigError, match="cannot hold a gallery"):
        Gallery(tmp_path, most=1)
