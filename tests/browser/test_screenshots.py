"""The pictures of docs/studio.md, made by `make test-browser ARGS=--screenshots`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from tests.browser.driver import settle

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LARGEST_BYTES = 300_000
COLOURS = 256
MODEL = "best"


@pytest.fixture(autouse=True)
def _asked_for(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--screenshots", default=False):
        pytest.skip("without --screenshots")


def write(page, name: str) -> None:
    """Write what a page shows, in so many colours that it is small."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS)
    path = IMAGES / f"studio-{name}.png"
    image.save(path, optimize=True)
    assert path.stat().st_size < LARGEST_BYTES


def test_the_views_as_they_look(new_page):
    page = new_page(viewport={"width": 1100, "height": 820}, color_scheme="light")
    page.locator("#paint select[name=model]").select_option(MODEL)
    page.locator("#paint").get_by_label("Seed", exact=True).fill("3")
    page.get_by_role("button", name="Paint", exact=True).click()
    page.locator("#paint-after").wait_for()
    settle(page)
    page.get_by_label("Rewind").fill("413")
    write(page, "paint")
    page.locator("#paint-after").get_by_role("button", name="Compress").click()
    page.locator("#compress-map").wait_for()
    write(page, "compress")
    page.get_by_label("Colours").select_option("dark")
    page.get_by_role("link", name="Tokens").click()
    page.locator("#tokens").get_by_role("button", name="The last painted").click()
    page.locator("#tokens-flips button").first.wait_for()
    page.locator("#tokens [data-at='12,14']").focus()
    page.wait_for_timeout(1000)
    page.locator("#tokens-flips button").first.wait_for()
    write(page, "tokens")
