"""Painting in a browser: watched, rewound, cancelled, by keys alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.browser.driver import CLASSES, GRID, MODEL, PATCH, SIZE, choose_model, paint, pixels

expect = pytest.importorskip("playwright.sync_api").expect

LENGTH = GRID[0] * GRID[1]


def test_a_picture_appears_token_after_token(new_page):
    page = new_page()
    choose_model(page, "paint")
    page.evaluate(
        """() => {
            window.seen = [];
            const look = () => {
                const at = Number(document.querySelector("#paint-position").value);
                if (at !== window.seen.at(-1)) window.seen.push(at);
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    page.get_by_role("button", name="Paint", exact=True).click()
    page.locator("#paint-after").wait_for()
    page.wait_for_function("all => window.seen.at(-1) === all", arg=LENGTH)
    seen = page.evaluate("window.seen")
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert len(seen) > GRID[0] + 2  # not row by row, as partial pictures come
    assert page.locator("#paint-progress").evaluate("bar => [bar.value, bar.max]") == [LENGTH, LENGTH]
    assert "bits each" in page.locator("#paint-chances").get_attribute("aria-label")
    assert np.ptp(pixels(page.locator("#paint-chances"))) > 0


def test_rewinding_shows_what_was_painted_by_then(new_page):
    page = new_page()
    paint(page, seed=5)
    canvas = page.locator("#paint-screen canvas").first
    whole = pixels(canvas)
    assert whole.shape == (*SIZE, 3)
    page.get_by_label("Rewind").fill(str(GRID[1]))
    part = pixels(canvas)
    assert (part[PATCH + 2 :] == 128).all()
    assert (part[: PATCH - 2] != 128).any()
    page.get_by_label("Rewind").fill(str(LENGTH))
    np.testing.assert_array_equal(pixels(canvas), whole)


def test_what_is_painted_is_what_the_gallery_keeps(new_page):
    page = new_page()
    paint(page, seed=6)
    painted = pixels(page.locator("#paint-screen canvas").first)
    page.reload()
    page.get_by_role("link", name="Gallery").click()
    kept = page.get_by_role("button", name=f"painted by {MODEL}, seed 6").first.locator("img")
    np.testing.assert_array_equal(pixels(kept), painted)


def test_a_picture_that_is_not_to_be_kept_is_not(new_page):
    page = new_page()
    page.locator("#paint").get_by_label("Keep it in the gallery").uncheck()
    paint(page, seed=777)
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator("#gallery-status")).not_to_have_text("")
    expect(page.get_by_role("button", name="seed 777")).to_have_count(0)


def test_the_recipe_is_copied_and_the_picture_downloaded(new_page):
    page = new_page()
    paint(page, seed=8)
    page.get_by_role("button", name="Copy recipe").click()
    expect(page.locator("#paint-status")).to_have_text("The recipe is copied.")
    assert json.loads(page.evaluate("navigator.clipboard.readText()"))["asked"]["seed"] == 8
    with page.expect_download() as download:
        page.get_by_role("link", name="Download PNG").click()
    assert download.value.suggested_filename == f"picture-{MODEL}-8-0.png"


def test_one_that_waits_sees_its_place_and_can_leave(new_page):
    page = new_page()
    page.evaluate(
        """() => {
            window.other = new AbortController();
            const body = JSON.stringify({ model: "best", n: 64 });
            const headers = { "Content-Type": "application/json" };
            fetch("/api/v1/sample", { method: "POST", body, headers, signal: window.other.signal }).catch(() => {});
        }"""
    )
    choose_model(page, "paint")
    page.wait_for_timeout(500)
    for _ in range(2):  # the one before it may be running already, and then none comes first
        page.evaluate(
            """() => {
                const body = JSON.stringify({ model: "seed", n: 64, seed: Math.floor(1e6 * Math.random()) });
                const headers = { "Content-Type": "application/json" };
                const { signal } = window.other;
                fetch("/api/v1/sample", { method: "POST", body, headers, signal }).catch(() => {});
            }"""
        )
    page.wait_for_timeout(200)
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#paint-status")).to_contain_text("first.")
    cancel = page.get_by_role("button", name="Cancel")
    cancel.click()
    expect(page.locator("#paint-status")).to_have_text("Cancelled.")
    expect(cancel).to_be_disabled()
    expect(page.locator("#paint-problem")).to_be_hidden()
    page.evaluate("window.other.abort()")
    page.wait_for_function("async () => (await (await fetch('/healthz')).json()).waiting === 0")


def test_a_picture_is_painted_by_keys_alone(new_page):
    page = new_page()
    choose_model(page, "paint")
    focused = "document.activeElement.name || document.activeElement.textContent.trim()"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "seed":
            break
    page.keyboard.press("Control+A")
    page.keyboard.type("41")
    page.keyboard.press("Enter")
    expect(page.locator("#paint-status")).to_contain_text("seed 41")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "Edit":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#edit-screen")).to_be_visible()


def test_settings_that_a_model_does_not_hear_are_hidden(new_page):
    page = new_page()
    choose_model(page, "paint")
    expect(page.locator("#paint select[name=class]")).to_be_visible()
    expect(page.locator("#paint select[name=class] option")).to_have_text(["Any", *CLASSES])
    expect(page.locator("#paint input[name=prompt]")).to_be_hidden()
    choose_model(page, "paint", "low")
    for name in ("class", "prompt", "guidance"):
        expect(page.locator(f"#paint [name={name}]")).to_be_hidden()


def test_motion_is_left_out_where_it_is_not_wanted(new_page):
    page = new_page(reduced_motion="reduce")
    choose_model(page, "paint")
    page.get_by_role("button", name="Paint", exact=True).click()
    page.locator("#paint-after").wait_for()
    assert page.locator("#paint-position").input_value() == str(LENGTH)  # with no wait for it


def test_events_are_read_however_they_come_in_pieces(new_page):
    page = new_page()
    found = page.evaluate(
        """async () => {
            const { events } = await import("/js/sse.js");
            const whole = 'event: a\\r\\ndata: {"x":\\r\\ndata: "é"}\\r\\n\\r\\n: a comment\\n\\ndata:1\\n\\n';
            const text = whole + "event: cut\\ndata: 2\\n";
            const bytes = new TextEncoder().encode(text);
            const all = [];
            for (let size = 1; size <= bytes.length; size++) {
                const found = [];
                const stream = new ReadableStream({
                    start(controller) {
                        for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
                        controller.close();
                    },
                });
                for await (const event of events(new Response(stream))) found.push(event);
                all.push(JSON.stringify(found));
            }
            return [...new Set(all)];
        }"""
    )
    assert [json.loads(one) for one in found] == [[{"name": "a", "data": {"x": "é"}}, {"name": "message", "data": 1}]]
