"""Shards in a bucket of a server that speaks S3: each is written once, however often the work is broken off."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bisquit.checkpoint import save_tokenizer
from bisquit.errors import FrameError, TokenError
from bisquit.frames import FrameSet, encode_png
from bisquit.frames.pieces import find_pieces
from bisquit.shards import begin, collected, tokenize_shards
from bisquit.streaming import StreamedTokens
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import tokenize

s3fs = pytest.importorskip("s3fs", reason="the extra s3 is not installed")
server = pytest.importorskip("moto.server", reason="the extra s3-test is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the client's and the server's own
SIZE = (8, 12)
PIECES = 60


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server of this test's own."""
    serving = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    yield f"http://{host}:{port}"
    serving.stop()


@pytest.fixture
def reached(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have clients, in other processes too, reach the server as they would reach any."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def system(reached: None) -> Any:
    """A client, and a bucket that keeps all that is ever written."""
    system = s3fs.S3FileSystem(version_aware=True, use_listings_cache=False)
    if not system.exists("bucket"):
        system.mkdir("bucket")
        system.call_s3("put_bucket_versioning", Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    return system


def writings(system: Any, folder: str) -> dict[str, int]:
    """Return how often each file of a folder was written."""
    found = system.call_s3("list_object_versions", Bucket="bucket", Prefix=f"{folder}/").get("Versions", [])
    names = [version["Key"].rpartition("/")[2] for version in found]
    return {name: names.count(name) for name in names}


@pytest.fixture
def frames(make_noise) -> FrameSet:
    return make_noise(PIECES)


@pytest.fixture
def url(system: Any, frames: FrameSet) -> str:
    """The URL of Parquet files of the frames in the bucket."""
    for number, indices in enumerate(np.array_split(np.arange(len(frames)), 2)):
        file = io.BytesIO()
        pq.write_table(pa.table({"image": [encode_png(frames[int(index)]) for index in indices]}), file)
        system.pipe_file(f"bucket/frames/{number}.parquet", file.getvalue())
    return "s3://bucket/frames/*.parquet"


def test_work_that_is_killed_goes_on_and_writes_each_shard_once(
    tmp_path: Path, system: Any, url: str, frames: FrameSet, make_tokenizer
):
    tokenizer: Tokenizer = make_tokenizer(bits=9)
    save_tokenizer(tokenizer, tmp_path / "tokenizer.safetensors")
    named = ("--tokenizer", str(tmp_path), "--frames", url, "--size", "8x12", "--piece-frames", "1")
    command = [sys.executable, "-m", "bisquit", "shards", *named, "-o", "s3://bucket/killed"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(writings(system, "killed")) < 4:  # two of them are no shards
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
    assert 4 <= len(writings(system, "killed")) < PIECES + 2
    with pytest.raises(TokenError, match=f"of {PIECES} shards: the same command makes the others"):
        collected("s3://bucket/killed")
    tokenize_shards(tokenizer, begin(tokenizer, url, "s3://bucket/killed", SIZE, 1))
    assert len(writings(system, "killed")) == PIECES + 2
    assert set(writings(system, "killed").values()) == {1}
    assert not begin(tokenizer, url, "s3://bucket/killed", SIZE, 1).pieces
    wanted = tokenize(tokenizer, frames)
    assert np.array_equal(collected("s3://bucket/killed").tokens, wanted.tokens)
    streamed = StreamedTokens("s3://bucket/killed")
    assert np.array_equal(streamed.batch(np.arange(PIECES)).numpy(), wanted.tokens)


def test_what_cannot_be_reached_is_told_in_one_line(
    system: Any, url: str, make_tokenizer, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(FrameError, match="names no file"):
        find_pieces("s3://no-such-bucket/*.parquet", 5)
    with pytest.raises(TokenError, match=r"no shards\.json"):
        collected("s3://bucket/nothing")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(FrameError, match=r"frames/\*\.parquet cannot be"):
        find_pieces(url, 5)
