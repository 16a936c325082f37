"""The other views in a browser: editing, compressing, looking at tokens, the gallery, runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.browser.driver import GRID, MODEL, SIZE, choose_model, cover, paint, picture_file, pixels

expect = pytest.importorskip("playwright.sync_api").expect


def edit(page) -> np.ndarray:
    """Press Edit, and return what comes out, uint8 (H, W, 3)."""
    page.locator("#edit button[type=submit]").click()
    page.locator("#edit-results figure").wait_for()
    return pixels(page.locator("#edit-results img").last)


@pytest.fixture
def editing(new_page, picture: Path):
    """The view that edits, with a picture."""
    page = new_page("edit")
    choose_model(page, "edit")
    page.locator("#edit .stage input[type=file]").set_input_files(picture)
    page.locator("#edit-screen").wait_for()
    return page


def test_what_the_brush_covers_is_painted_and_nothing_else(editing):
    before = pixels(editing.locator("#edit-screen canvas").first)
    editing.locator("#edit input[name=brush_px]").fill("4")
    box = editing.locator("#edit-screen canvas").first.bounding_box()
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    editing.mouse.move(*at)
    editing.mouse.down()
    editing.mouse.move(at[0] + box["width"] / 4, at[1], steps=5)
    editing.mouse.up()
    after = edit(editing)
    changed = (before != after).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed.any()
    assert 6 <= rows.min() <= rows.max() <= 12
    assert 12 <= columns.min() <= columns.max() <= 25


def test_a_rectangle_is_covered_by_its_numbers_and_uncovered(editing):
    before = pixels(editing.locator("#edit-screen canvas").first)
    cover(editing, 2, 3, 10, 6)
    editing.get_by_role("button", name="Uncover all").click()
    editing.locator("#edit button[type=submit]").click()
    expect(editing.locator("#edit-problem")).to_contain_text("nothing is covered")
    cover(editing, 2, 3, 10, 6)
    after = edit(editing)
    expect(editing.locator("#edit-problem")).to_be_hidden()
    changed = (before != after).any(axis=2)
    assert changed[3:9, 2:12].any()
    changed[3:9, 2:12] = False
    assert not changed.any()


def test_pictures_are_extended_varied_and_joined(editing, tmp_path: Path):
    editing.locator("#edit input[name=right]").evaluate("field => { field.value = 7 }")
    editing.get_by_role("radio", name="Extend").check()
    assert edit(editing).shape == (SIZE[0], SIZE[1] + 7, 3)
    editing.get_by_role("radio", name="Vary").check()
    editing.get_by_label("How many").fill("2")
    editing.locator("#edit button[type=submit]").click()
    expect(editing.locator("#edit-results figure")).to_have_count(2)
    editing.get_by_role("radio", name="Blend").check()
    editing.get_by_label("How many").fill("1")
    editing.locator("#edit button[type=submit]").click()
    expect(editing.locator("#edit-problem")).to_have_text("choose the second picture, too")
    editing.locator("#edit form input[type=file]").set_input_files(picture_file(tmp_path / "second.png", seed=1))
    editing.locator("#edit input[name=band]").fill("4")
    editing.locator("#edit button[type=submit]").click()
    expect(editing.locator("#edit-results figcaption")).to_have_text([f"blended by {MODEL}, seed 0"])


def test_a_larger_picture_can_be_fitted(new_page, tmp_path: Path):
    page = new_page("edit")
    choose_model(page, "edit")
    page.locator("#edit .stage input[type=file]").set_input_files(picture_file(tmp_path / "large.jpg", (80, 200)))
    page.get_by_role("button", name="Fit it to the model's size").click()
    expect(page.locator("#edit-screen canvas").first).to_have_attribute("width", str(SIZE[1]))
    expect(page.get_by_role("button", name="Fit it to the model's size")).to_be_hidden()


def test_a_picture_is_compressed_beside_webp_and_opened_again(new_page, tmp_path: Path):
    page = new_page("compress")
    choose_model(page, "compress")
    page.locator("#compress input[accept*=png]").set_input_files(picture_file(tmp_path / "large.png", (60, 90)))
    page.locator("#compress-map").wait_for()
    expect(page.locator("#compress-note")).to_contain_text("resized from 90 × 60")
    expect(page.locator("#compress-figures th")).to_have_text(["PNG", ".bisq", "WebP"])
    rows = page.locator("#compress-figures tr")
    size = int(rows.nth(1).locator("td").first.inner_text())
    with page.expect_download() as download:
        page.get_by_role("link", name="Download .bisq").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "large.bisq"
    assert path.stat().st_size == size
    page.get_by_label("What is compared").select_option("2,1")
    shown = pixels(page.locator("#compress-compare img").last)
    expect(page.locator("#compress-compare img").first).to_have_attribute("alt", "the browser's WebP")
    page.locator("#compress input[name=file]").set_input_files(path)
    expect(page.locator("#compress-status")).to_have_text(f"large.bisq: {size} bytes, 30 × 19.")
    np.testing.assert_array_equal(pixels(page.locator("#compress-compare img").last), shown)


def test_quality_is_heard_once_the_slider_rests(new_page, picture: Path):
    page = new_page("compress")
    choose_model(page, "compress", "low")
    page.locator("#compress input[accept*=png]").set_input_files(picture)
    page.locator("#compress-map").wait_for()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/compress") else None)
    slider = page.locator("#compress input[name=quality]")
    before = page.locator("#compress-figures tr").nth(1).inner_text()
    slider.focus()
    for _ in range(10):
        page.keyboard.press("PageUp")
    expect(page.locator("#compress-figures tr").nth(1)).not_to_have_text(before)
    assert slider.input_value() == "100"
    assert len(asked) < 10


def test_psnr_is_that_of_the_definition(new_page):
    page = new_page()
    found = page.evaluate(
        """async () => {
            const { psnr } = await import("/js/pictures.js");
            const flat = (level) => createImageBitmap(new ImageData(new Uint8ClampedArray(4 * 6).fill(level).map(
                (value, i) => (i % 4 === 3 ? 255 : value)), 3, 2));
            return [await psnr(await flat(10), await flat(30)), await psnr(await flat(9), await flat(9))];
        }"""
    )
    assert found[0] == pytest.approx(10 * np.log10(255**2 / 20**2))
    assert found[1] == float("inf")


def test_flipping_a_bit_changes_the_token_and_can_be_undone(new_page, picture: Path):
    page = new_page("tokens")
    page.locator("#tokens-model").select_option(MODEL)
    page.locator("#tokens input[type=file]").set_input_files(picture)
    page.locator("#tokens-flips button").first.wait_for()
    assert page.locator("#tokens .cells [role=gridcell]").count() == GRID[0] * GRID[1]
    page.locator("#tokens .cells [tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tokens-token")).to_contain_text("Row 1, column 1")
    page.keyboard.press("Enter")
    token = int(page.locator("#tokens-token strong").inner_text().removeprefix("Token "))
    flip = page.get_by_role("button", name=f"Bit 2: token {token ^ 4},")
    flip.wait_for()
    before = pixels(page.locator("#tokens-screen canvas").first)
    flip.click()
    expect(page.locator("#tokens-token strong")).to_have_text(f"Token {token ^ 4}")
    changed = (before != pixels(page.locator("#tokens-screen canvas").first)).any(axis=2)
    assert changed[4:8, 4:8].any()
    page.get_by_role("button", name="Undo all flips").click()
    expect(page.locator("#tokens-token strong")).to_have_text(f"Token {token}")
    np.testing.assert_array_equal(pixels(page.locator("#tokens-screen canvas").first), before)


def test_a_kept_picture_is_painted_again_sent_on_and_deleted(new_page):
    page = new_page()
    paint(page, seed=90)
    page.get_by_role("link", name="Gallery").click()
    kept = page.get_by_role("button", name=f"painted by {MODEL}, seed 90")
    kept.click()
    page.get_by_role("button", name="Paint it again").click()
    expect(page.locator("#gallery-open-status")).to_have_text("Painted again: the same, byte for byte.")
    page.locator("#gallery-open").get_by_role("button", name="Edit").click()
    expect(page.locator("#edit-screen")).to_be_visible()
    page.go_back()
    kept.click()
    page.locator("#gallery-open").get_by_role("button", name="Use its settings").click()
    expect(page.locator("#paint").get_by_label("Seed", exact=True)).to_have_value("90")
    page.go_back()
    kept.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#gallery-open-status")).to_contain_text("Press again")
    page.get_by_role("button", name="Delete for good").click()
    expect(kept).to_have_count(0)


def test_the_gallery_has_pages(new_page):
    page = new_page()
    page.evaluate(
        """async () => {
            const body = JSON.stringify({ model: "tiny", n: 30, seed: 500, keep: true, answer: "json" });
            await fetch("/api/v1/sample", { method: "POST", body, headers: { "Content-Type": "application/json" } });
        }"""
    )
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator("#gallery-shelf button").first).to_contain_text("number 29")
    page.get_by_role("button", name="Older").click()
    expect(page.locator("#gallery-shelf button").first).to_contain_text("number 5")
    page.get_by_role("button", name="Newer").click()
    expect(page.locator("#gallery-shelf button").first).to_contain_text("number 29")


def test_curves_are_drawn_and_read_by_keys(new_page):
    page = new_page("runs")
    chart = page.locator("#runs-charts figure")
    expect(chart).to_have_count(1)
    expect(chart.locator("figcaption")).to_have_text("losstrainvalid")
    assert (
        chart.locator("svg[role=img] > path").nth(0).get_attribute("d").count("M") == 2
    )  # a gap where it is not finite
    expect(chart.locator("output")).to_have_text("step 39: train 3.1, valid 3.3")
    chart.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(chart.locator("output")).to_have_text("step 0: train 7")
    expect(page.locator("#runs-pictures img")).to_have_js_property("naturalWidth", 8)


def test_runs_are_asked_for_while_they_are_looked_at(new_page):
    page = new_page("runs")
    page.locator("#runs-charts figure").wait_for()
    with page.expect_request("**/api/v1/runs", timeout=20_000):
        pass
    page.get_by_role("link", name="Gallery").click()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/runs" in request.url else None)
    page.wait_for_timeout(5000)
    assert not asked
