"""What models make of pictures, over HTTP: tokens, bits, likelihoods and files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.studio.driver import API, GRID, MODEL, SIZE, decoded, encoded, frame, upload

from bisquit.codec import RateConfig, archive
from bisquit.evaluation.views import surprise
from bisquit.frames import fit_frame
from bisquit.generate import load, load_codec, shipped_models


def test_every_model_is_described(client: TestClient):
    found = {model["name"]: model for model in client.get(f"{API}/models").json()["models"]}
    assert list(found) == [*shipped_models(), MODEL]
    tiny = found[MODEL]
    assert tiny["classes"] == ["ice", "sand"]
    assert (tiny["size"], tiny["grid"], tiny["bits"], tiny["patch_size"]) == ([*SIZE], [*GRID], 3, 4)
    assert (tiny["prior"], tiny["paints"], tiny["reads_words"]) == ("raster", True, False)


def test_pictures_go_to_tokens_and_back(client: TestClient, model_folder: Path):
    picture, model = frame(size=(21, 33)), load(model_folder)
    answer = client.post(f"{API}/encode", files=upload(picture=encoded(picture)), data={"model": MODEL})
    found = answer.json()
    np.testing.assert_array_equal(found["tokens"], model.encode(picture[None])[0])
    assert (found["bits"], found["size"], found["model"]) == (3, [21, 33], MODEL)
    back = client.post(f"{API}/decode", json={key: found[key] for key in ("model", "tokens", "size")})
    assert back.headers["content-type"] == "image/png"
    wanted = model.decode(np.array([found["tokens"]]), (21, 33))[0]
    np.testing.assert_array_equal(decoded(back.content), wanted)


@pytest.mark.parametrize(("grid", "size"), [(GRID, SIZE), ((2, 3), (8, 12))])
def test_tokens_without_a_size_are_whole_patches_or_the_models_pictures(
    client: TestClient, grid: tuple[int, int], size: tuple[int, int]
):
    answer = client.post(f"{API}/decode", json={"model": MODEL, "tokens": np.zeros(grid, dtype=int).tolist()})
    assert decoded(answer.content).shape == (*size, 3)


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"tokens": [[8]]}, 422, "outside of the codebook"),
        ({"tokens": [[-1]]}, 422, "outside of the codebook"),
        ({"tokens": [[2**70]]}, 422, "outside of the codebook"),
        ({"tokens": [[0, 1], [0]]}, 422, "no grid"),
        ({"tokens": [[]]}, 422, "no grid"),
        ({"tokens": []}, 422, "tokens: "),
        ({"tokens": [["0"]]}, 422, "tokens.0.0: "),
        ({"tokens": [[0]], "size": [100, 4]}, 422, "frames of 100 x 4"),
        ({"tokens": [[0]], "size": [0, 0]}, 422, "size"),
        ({"tokens": [[0]], "size": [2**70, 4]}, 422, "size"),
        ({"tokens": [[0] * 600] * 600}, 413, "4,000,000 pixels"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_tokens_that_are_no_picture_are_refused(client: TestClient, asked: dict[str, Any], status: int, said: str):
    for path, more in (("decode", {}), ("tokens/bits", {"row": 0, "column": 0})):
        answer = client.post(f"{API}/{path}", json={"model": MODEL, **asked, **more})
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]


def test_each_bit_of_a_token_is_flipped(client: TestClient, model_folder: Path):
    model = load(model_folder)
    tokens = model.encode(frame()[None])
    asked = {"model": MODEL, "tokens": tokens[0].tolist(), "row": 2, "column": 5}
    found = client.post(f"{API}/tokens/bits", json=asked).json()
    plain = model.decode(tokens, SIZE)[0]
    assert found["token"] == tokens[0, 2, 5]
    np.testing.assert_array_equal(decoded(base64.b64decode(found["png"])), plain)
    assert [flip["bit"] for flip in found["flips"]] == [0, 1, 2]
    for flip in found["flips"]:
        other = tokens.copy()
        other[0, 2, 5] ^= 1 << flip["bit"]
        assert flip["token"] == other[0, 2, 5]
        wanted = model.decode(other, SIZE)[0]
        np.testing.assert_array_equal(decoded(base64.b64decode(flip["png"])), wanted)
        assert flip["mean_change"] == pytest.approx(np.abs(wanted.astype(int) - plain).mean())
    outside = client.post(f"{API}/tokens/bits", json={**asked, "row": 5})
    assert outside.status_code == 422
    assert "outside of 5 x 8" in outside.json()["error"]


def test_a_likelihood_is_the_models(client: TestClient, model_folder: Path):
    picture, model = frame(size=(50, 60)), load(model_folder)
    answer = client.post(f"{API}/likelihood", files=upload(picture=encoded(picture)), data={"model": MODEL})
    found = answer.json()
    tokens = model.encode(fit_frame(picture, SIZE)[None])
    np.testing.assert_array_equal(found["tokens"], tokens[0])
    assert model.prior is not None
    np.testing.assert_allclose(found["bits"], surprise(model.prior, tokens)[0], atol=1e-3)
    assert found["total_bits"] == pytest.approx(np.sum(found["bits"]), abs=0.01)
    height, width, _ = decoded(base64.b64decode(found["png"])).shape
    assert width > GRID[1] * 8
    assert height > GRID[0] * 8


def test_files_are_the_codecs(client: TestClient, model_folder: Path):
    codec = load_codec(model_folder)
    data = {"model": MODEL, "quality": "80", "effort": "1"}
    answer = client.post(f"{API}/compress", files=upload(picture=encoded(frame())), data=data)
    assert answer.status_code == 200, answer.text
    assert answer.content == codec.compress(frame()[None], RateConfig(quality=80, effort=1))[0]
    assert "picture.bisq" in answer.headers["content-disposition"]
    back = client.post(f"{API}/decompress", files=upload(file=answer.content), data={"model": MODEL})
    np.testing.assert_array_equal(decoded(back.content), codec.decompress([answer.content])[0])


def test_files_that_are_none_are_refused(client: TestClient, tmp_path: Path):
    def refused(file: bytes, status: int = 422) -> str:
        answer = client.post(f"{API}/decompress", files=upload(file=file), data={"model": MODEL})
        assert answer.status_code == status
        return answer.json()["error"]

    picture = client.post(f"{API}/compress", files=upload(picture=encoded(frame())), data={"model": MODEL}).content
    assert "no compressed picture" in refused(b"")
    assert "no compressed picture" in refused(encoded(frame()))
    assert "damaged" in refused(picture[:-1] + bytes([picture[-1] ^ 1]))
    assert "cut" in refused(picture[:5])
    assert "archive" in refused(archive.HEADER + archive.record("a.png", picture))
    assert "at most" in refused(b"bq" + bytes(10**5), 413)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"quality": "101"}, "quality: "),
        ({"target_bytes": "100", "target_psnr": "20"}, "target_psnr is 20"),
        ({"target_bytes": "100", "effort": "0"}, "effort is 0"),
        ({"model": "../tiny"}, "no model of this name"),
    ],
)
def test_rates_that_cannot_be_are_refused(client: TestClient, data: dict[str, str], said: str):
    answer = client.post(f"{API}/compress", files=upload(picture=encoded(frame())), data={"model": MODEL, **data})
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_pictures_of_another_size_are_not_compressed(client: TestClient):
    picture = upload(picture=encoded(frame(size=(40, 40))))
    answer = client.post(f"{API}/compress", files=picture, data={"model": MODEL})
    assert answer.status_code == 422
    assert "compresses 19 x 30" in answer.json()["error"]
