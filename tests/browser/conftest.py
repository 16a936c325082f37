"""A studio in a process of its own, and a browser that looks at it. A page that fails, or breaks its policy, fails its
test.

These tests are asked for by name, `make test-browser`, and need the extra `browser` and a Chromium.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.browser.driver import CLASSES, GRID, MODEL, SIZE, picture_file
from tests.conftest import roughen
from torch.utils.tensorboard import SummaryWriter

from bisquit.checkpoint import PRIOR_FILE, TOKENIZER_FILE, SavedPrior, save_prior, save_tokenizer
from bisquit.conditioning import Conditions
from bisquit.priors import RasterConfig, build_prior
from bisquit.record import RunRecord
from bisquit.transformer import TransformerConfig

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs pip install 'bisquit[browser]'", exc_type=ImportError
)

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 180
TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
WAIT_MS = 30_000
NewPage = Callable[..., "sync_api.Page"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which the documentation's pictures are made."""
    parser.addoption("--screenshots", action="store_true", help="write docs/images/studio-*.png")


@pytest.fixture(scope="session")
def model_folder(make_tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of frames of 19 x 30, grids of 5 x 8, that knows two classes, one of them named like a script."""
    folder = tmp_path_factory.mktemp("models") / MODEL
    tokenizer = make_tokenizer()
    prior = build_prior(RasterConfig(transformer=TINY, condition_size=2), 3, GRID)
    roughen(prior, 1)
    save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
    save_prior(SavedPrior(prior, SIZE, tokenizer.fingerprint(), Conditions(CLASSES)), folder / PRIOR_FILE)
    return folder


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two curves of one kind, one of them with a gap, and a picture."""
    root = tmp_path_factory.mktemp("runs")
    RunRecord("prior", "demo", {}, {}, "float32", {}).save(root / "model")
    with SummaryWriter(root / "model" / "logs") as writer:
        for step in range(40):
            writer.add_scalar("train/loss", float("nan") if step == 20 else 3 + 4 / (step + 1), step)
            if step % 10 == 9:
                writer.add_scalar("valid/loss", 3.2 + 4 / (step + 1), step)
        writer.add_image("samples", np.full((6, 8, 3), 90, dtype=np.uint8), 39, dataformats="HWC")
    return root


@pytest.fixture(scope="session")
def studio(model_folder: Path, runs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a studio that runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("studio")
    command = [sys.executable, "-m", "bisquit", "studio", "--port", str(port), "--data", str(folder / "data")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--model", str(model_folder), "--runs", str(runs_folder)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}", process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a studio answers, and has its models at hand."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/api/v1/models", timeout=START_S):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError("the studio never answered")


@pytest.fixture(scope="session")
def browser() -> Iterator[sync_api.Browser]:
    """A Chromium that shows nothing."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        assert os.environ.get("BISQUIT_REQUIRE_BROWSER") != "1", "no Chromium: on Debian, apt-get install chromium"
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: sync_api.Browser, studio: str) -> Iterator[NewPage]:
    """A function that opens a view of the studio, in a window of its own with some settings."""
    contexts, wrong = [], []

    def hear(message: sync_api.ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # what is refused is logged so
            wrong.append(message.text)

    def make(view: str = "paint", **settings: object) -> sync_api.Page:
        settings = {
            "viewport": {"width": 1280, "height": 860},
            "permissions": ["clipboard-read", "clipboard-write"],
        } | (settings)
        context = browser.new_context(base_url=studio, **settings)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", hear)
        page.on("dialog", lambda dialog: (wrong.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(f"/#/{view}")
        page.wait_for_function("document.querySelectorAll('main > section:not([hidden])').length === 1")
        return page

    sync_api.expect.set_options(timeout=WAIT_MS)
    yield make
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of the tiny model's size, as a file."""
    return picture_file(tmp_path / "frame.png")
