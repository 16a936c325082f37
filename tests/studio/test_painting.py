"""Painting over HTTP: the library's pictures, alone, watched and together with others'."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.studio.driver import API, GRID, MODEL, SIZE, decoded, encoded, events, frame, held_up, until, upload

from bisquit.editing import EditConfig, Editor
from bisquit.generate import load
from bisquit.sampling import SamplingConfig
from bisquit.studio.studio import Studio


def sample(client: TestClient, **asked: Any) -> Any:
    return client.post(f"{API}/sample", json={"model": MODEL, **asked})


def test_one_picture_is_a_png_and_the_librarys(client: TestClient, model_folder: Path):
    answer = sample(client, seed=3, temperature=0.8, top_k=5)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    wanted = load(model_folder).sample(1, seed=3, settings=SamplingConfig(temperature=0.8, top_k=5))[0]
    np.testing.assert_array_equal(decoded(answer.content), wanted)
    recipe = json.loads(answer.headers["bisquit-recipe"])
    assert recipe["asked"]["seed"] == 3
    assert recipe["asked"]["top_k"] == 5


def test_several_are_a_zip_with_their_recipes(client: TestClient, model_folder: Path):
    answer = sample(client, n=3, seed=1)
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["0.png", "1.png", "2.png", "recipes.json"]
        pictures = np.stack([decoded(archive.read(f"{i}.png")) for i in range(3)])
        assert [recipe["number"] for recipe in json.loads(archive.read("recipes.json"))] == [0, 1, 2]
    np.testing.assert_array_equal(pictures, load(model_folder).sample(3, seed=1))
    assert sample(client, n=3, seed=1).content == answer.content


def test_json_holds_pictures_recipes_and_tokens(client: TestClient, model_folder: Path):
    pictures = sample(client, n=2, answer="json").json()["pictures"]
    assert [picture["id"] for picture in pictures] == [None, None]
    model = load(model_folder)
    for i, picture in enumerate(pictures):
        tokens = np.array([picture["tokens"]])
        assert tokens.shape == (1, *GRID)
        wanted = model.sample(2)[i]
        np.testing.assert_array_equal(model.decode(tokens, SIZE)[0], wanted)
        np.testing.assert_array_equal(decoded(base64.b64decode(picture["png"])), wanted)


def test_requests_that_wait_are_painted_together_and_come_out_as_alone(client: TestClient, studio: Studio):
    asked = [
        {"seed": 1, "class": "ice", "guidance": 2.0},
        {"seed": 7, "class": "sand", "guidance": 2.0, "n": 3, "answer": "zip"},
        {"seed": 2**53 - 1, "class": "sand", "guidance": 2.0},
        {"seed": 5, "class": "ice", "guidance": 3.0},  # which others' guidance does not fit
        {"seed": 5},
    ]
    alone = [sample(client, **one).content for one in asked]
    before = len(runs := [])
    studio.worker._on_run = lambda jobs, pictures, seconds: runs.append((jobs, pictures))
    with ThreadPoolExecutor() as pool, held_up(studio) as gate:
        futures = []
        for i, one in enumerate(asked):
            futures.append(pool.submit(sample, client, **one))
            until(lambda i=i: studio.worker.waiting == i + 1)
        gate.set()
        together = [future.result().content for future in futures]
    assert together == alone
    assert len(set(alone)) == len(alone)
    assert runs[before:] == [(1, 1), (3, 5), (1, 1), (1, 1)]  # the first held the worker up


def test_no_more_are_painted_together_than_a_batch_has(client: TestClient, studio: Studio):
    runs: list[int] = []
    studio.worker._on_run = lambda jobs, pictures, seconds: runs.append(pictures)
    with ThreadPoolExecutor() as pool, held_up(studio) as gate:
        futures = []
        for i in range(3):
            futures.append(pool.submit(sample, client, n=30, seed=i))
            until(lambda i=i: studio.worker.waiting == i + 1)
        gate.set()
        assert all(future.result().status_code == 200 for future in futures)
    assert runs == [1, 60, 30]


def test_a_stream_shows_the_picture_grow(client: TestClient, model_folder: Path):
    told = events(client, {"model": MODEL, "seed": 4, "class": "ice"})
    assert [name for name, _ in told] == ["queued", *["partial"] * GRID[0], "picture"]
    model = load(model_folder)
    tokens = model.paint(range(1), seed=4, class_name="ice")
    partial = [data for name, data in told if name == "partial"]
    assert [data["done"] for data in partial] == [8, 16, 24, 32, 40]
    for row, data in enumerate(partial, start=1):
        np.testing.assert_array_equal(data["tokens"][:row], tokens.tokens[0, :row])
        assert {token for line in data["tokens"][row:] for token in line} <= {-1}
        assert all(chance is None for line in data["chances"][row:] for chance in line)
    chances = np.array(partial[-1]["chances"])
    assert -np.log2(chances).sum() == pytest.approx(tokens.bits[0], abs=0.01)
    np.testing.assert_allclose(partial[0]["chances"][0], chances[0], atol=1e-5)
    done = told[-1][1]
    assert base64.b64decode(done["png"]) == sample(client, seed=4, **{"class": "ice"}).content
    assert done["tokens"] == tokens.tokens[0].tolist()


def test_a_stream_is_not_held_up_by_what_it_shows(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bisquit.studio.painting.SHOWING", 0.0)
    told = events(client, {"model": MODEL})
    assert [data["done"] for name, data in told if name == "partial"] == [8, 40]  # the first, and the whole


def test_a_stream_shows_as_little_as_is_asked_for(client: TestClient):
    told = events(client, {"model": MODEL, "every": 17})
    assert [data["done"] for name, data in told if name == "partial"] == [24, 40]


def test_a_stream_is_painted_with_others(client: TestClient, studio: Studio):
    runs: list[int] = []
    studio.worker._on_run = lambda jobs, pictures, seconds: runs.append(jobs)
    with ThreadPoolExecutor() as pool, held_up(studio) as gate:
        plain = pool.submit(sample, client, seed=1)
        until(lambda: studio.worker.waiting == 1)
        watched = pool.submit(events, client, {"model": MODEL, "seed": 2})
        until(lambda: studio.worker.waiting == 2)
        gate.set()
        told = watched.result()
        assert plain.result().status_code == 200
    assert runs == [1, 2]
    assert told[0] == ("queued", {"ahead": 1})
    assert base64.b64decode(told[-1][1]["png"]) == sample(client, seed=2).content


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("inpaint", {"seed": "2", "n": "2", "candidates": "3"}),
        ("extend", {"left": "5", "bottom": "3"}),
        ("vary", {"share": "0.25", "class": "ice"}),
        ("blend", {"band": "4", "temperature": "0.5"}),
    ],
)
def test_edits_are_the_librarys(client: TestClient, model_folder: Path, kind: str, asked: dict[str, str]):
    first, second, mask = frame(1), frame(2), np.zeros((*SIZE, 3), dtype=np.uint8)
    mask[6:13, 9:17] = 255
    files = {"first": first, "second": second} if kind == "blend" else {"picture": first}
    files |= {"mask": mask} if kind == "inpaint" else {}
    sent = upload(**{name: encoded(one) for name, one in files.items()})
    answer = client.post(f"{API}/edit/{kind}", files=sent, data={"model": MODEL, "answer": "json", **asked})
    assert answer.status_code == 200, answer.text
    edited = [decoded(base64.b64decode(picture["png"])) for picture in answer.json()["pictures"]]
    editor = Editor(
        load(model_folder),
        edit=EditConfig(int(asked.get("candidates", 8))),
        settings=SamplingConfig(temperature=float(asked.get("temperature", 1))),
        class_name=asked.get("class"),
    )
    wanted = {
        "inpaint": lambda: editor.inpaint(first, mask[..., 0] > 127, n=2, seed=2),
        "extend": lambda: editor.extend(first, left=5, bottom=3),
        "vary": lambda: editor.vary(first, 0.25),
        "blend": lambda: editor.join(first, second, 4),
    }[kind]()
    np.testing.assert_array_equal(np.stack(edited), wanted)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "../../etc"}, "no model of this name"),
        ({"model": "/etc/passwd"}, "no model of this name"),
        ({"n": 0}, "n: "),
        ({"n": 65}, "n: "),
        ({"n": "3"}, "n: "),
        ({"seed": -1}, "seed: "),
        ({"temperature": -0.5}, "temperature: "),
        ({"class": "lava"}, "no class 'lava'"),
        ({"prompt": "<script>alert(1)</script>"}, "knows no words"),
        ({"class": "ice", "prompt": "ice"}, "either a class or a prompt"),
        ({"guidance": 3.0}, "guidance is 3"),
        ({"steps": 3}, "steps is for"),
        ({"n": 2, "answer": "png"}, "answer is png, and 2"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
    ids=str,
)
def test_what_cannot_be_painted_is_refused_by_one_line(client: TestClient, asked: dict[str, Any], said: str):
    answer = sample(client, **asked)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_stream_is_refused_before_it_begins(client: TestClient):
    for asked in ({"class": "lava"}, {"model": "none"}, {"every": 0}):
        assert client.post(f"{API}/sample/stream", json={"model": MODEL, **asked}).status_code == 422


def test_what_goes_wrong_in_a_stream_is_its_last_event(client: TestClient):
    name, data = events(client, {"model": MODEL, "guidance": 3.0})[-1]
    assert name == "error"
    assert "guidance is 3" in data["error"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"n": NaN}', b"\xff\xfe", b'{"seed": ' + b"9" * 5000 + b"}"])
def test_bodies_that_are_no_request_are_refused(client: TestClient, content: bytes):
    answer = client.post(f"{API}/sample", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert list(answer.json()) == ["error"]


def test_edits_that_cannot_be_are_refused(client: TestClient):
    def refusal(kind: str, status: int = 422, data: dict[str, str] | None = None, **files: np.ndarray) -> str:
        sent = upload(**{name: encoded(one) for name, one in files.items()})
        answer = client.post(f"{API}/edit/{kind}", files=sent, data={"model": MODEL, **(data or {})})
        assert answer.status_code == status
        return answer.json()["error"]

    assert "19 x 31" in refusal("inpaint", picture=frame(), mask=frame(size=(19, 31)))
    assert "mask: Field required" in refusal("inpaint", picture=frame())
    assert "nothing is to be added" in refusal("extend", picture=frame())
    assert "needs 19 x 30" in refusal("inpaint", picture=frame(size=(8, 8)), mask=frame(size=(8, 8)))
    assert "of one size" in refusal("blend", first=frame(), second=frame(size=(20, 30)))
    assert "share" in refusal("vary", data={"share": "2"}, picture=frame())
    wide = frame(size=(3900, 1020))
    assert "would be 3900 x 2044" in refusal("extend", 413, {"left": "1024"}, picture=wide)
