"""A studio with one tiny model, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.conftest import roughen
from tests.studio.driver import GRID, HOST, MODEL, SIZE, studio_of

from bisquit.checkpoint import PRIOR_FILE, TOKENIZER_FILE, SavedPrior, save_prior, save_tokenizer
from bisquit.conditioning import Conditions
from bisquit.priors import RasterConfig, build_prior
from bisquit.studio.app import create_app
from bisquit.studio.limits import Limits
from bisquit.studio.studio import Studio, StudioConfig
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
Open = Callable[..., TestClient]


@pytest.fixture(scope="session")
def model_folder(make_tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of frames of 19 x 30, grids of 5 x 8, that knows two classes."""
    folder = tmp_path_factory.mktemp("models") / MODEL
    tokenizer = make_tokenizer()
    prior = build_prior(RasterConfig(transformer=TINY, condition_size=2), 3, GRID)
    roughen(prior, 1)
    save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
    saved = SavedPrior(prior, SIZE, tokenizer.fingerprint(), Conditions(("ice", "sand")))
    save_prior(saved, folder / PRIOR_FILE)
    return folder


@pytest.fixture(autouse=True)
def _show_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have streams show every part, however long it takes beside so tiny a model's painting."""
    monkeypatch.setattr("bisquit.studio.painting.SHOWING", float("inf"))


@pytest.fixture
def make_config(model_folder: Path, tmp_path: Path) -> Callable[..., StudioConfig]:
    """A function that returns how a studio is started, with some limits of its own."""

    def make(runs: Path | None = None, **limits: float) -> StudioConfig:
        return StudioConfig(tmp_path / "data", runs, {MODEL: model_folder}, limits=Limits(**limits))

    return make


@pytest.fixture
def open_studio(make_config) -> Iterator[Open]:
    """A function that opens a studio, with some limits of its own, and returns a client."""
    with ExitStack() as stack:

        def make(pages: Path = Path("nowhere"), runs: Path | None = None, **limits: float) -> TestClient:
            app = create_app(make_config(runs, **limits), pages)
            client = TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(open_studio: Open) -> TestClient:
    """A client of a studio as it is by default."""
    return open_studio()


@pytest.fixture
def studio(client: TestClient) -> Studio:
    """The studio that `client` asks."""
    return studio_of(client.app)
