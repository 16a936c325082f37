"""What the tests in a browser share: the tiny model's measures, pictures, and steps that many of them take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

MODEL = "tiny"
SIZE = (19, 30)
GRID = (5, 8)
PATCH = 4
EVIL = "<img src=x onerror=alert(1)>"
CLASSES = ("ice", EVIL)
VIEWS = ("paint", "edit", "compress", "tokens", "gallery", "runs")


def picture_file(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """Write a picture of noise, and return where."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def choose_model(page: Page, view: str, name: str = MODEL) -> None:
    """Choose a model in a view's settings."""
    page.locator(f"#{view} select[name=model]").select_option(name)


def paint(page: Page, seed: int = 0) -> None:
    """Paint a picture with the tiny model, and wait until it is there."""
    choose_model(page, "paint")
    page.locator("#paint").get_by_label("Seed", exact=True).fill(str(seed))
    page.get_by_role("button", name="Paint", exact=True).click()
    page.locator("#paint-after").wait_for()
    settle(page)


def settle(page: Page) -> None:
    """Wait until all that was painted is shown."""
    page.wait_for_function(
        """() => {
            const { max, value } = document.querySelector("#paint-position");
            return max !== "0" && value === max;
        }"""
    )


def pixels(image: Locator) -> np.ndarray:
    """Return what a canvas or an image shows, uint8 (H, W, 3), in its own pixels."""
    width, height, values = image.evaluate(
        """async (image) => {
            if (image instanceof HTMLImageElement) await image.decode();
            const [width, height] = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
            const context = new OffscreenCanvas(width, height).getContext("2d");
            context.drawImage(image, 0, 0);
            return [width, height, [...context.getImageData(0, 0, width, height).data]];
        }"""
    )
    return np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]


def fill_views(page: Page, picture: Path) -> dict[str, Callable[[], None]]:
    """Return for each view what brings all of it onto the page."""

    def choose(view: str, done: str) -> None:
        page.locator(f"#{view} .stage input[type=file]").set_input_files(picture)
        page.locator(done).first.wait_for()

    def edit() -> None:
        choose("edit", "#edit-screen")
        choose_model(page, "edit")
        cover(page, 4, 4, 8, 8)
        page.locator("#edit button[type=submit]").click()
        page.locator("#edit-results figure").wait_for()

    def compress() -> None:
        choose("compress", "#compress-map")

    def tokens() -> None:
        page.locator("#tokens-model").select_option(MODEL)
        choose("tokens", "#tokens-flips button")

    return {
        "paint": lambda: paint(page),
        "edit": edit,
        "compress": compress,
        "tokens": tokens,
        "gallery": lambda: page.locator("#gallery-shelf button").first.wait_for(),
        "runs": lambda: page.locator("#runs-charts figure").first.wait_for(),
    }


def cover(page: Page, left: int, top: int, width: int, height: int) -> None:
    """Cover a rectangle of the picture that is edited, by its numbers."""
    for name, value in (("left", left), ("top", top), ("width", width), ("height", height)):
        page.locator(f"#edit input[name={name}_px]").fill(str(value))
    page.get_by_role("button", name="Cover the rectangle").click()
