"""That everybody can use it: contrast, names and roles, narrow windows, both schemes; and that nothing sent is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.browser.driver import EVIL, VIEWS, choose_model, fill_views, paint, picture_file

expect = pytest.importorskip("playwright.sync_api").expect
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

PHONE = {"width": 360, "height": 740}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(new_page, picture: Path, scheme: str):
    page = new_page(color_scheme=scheme, reduced_motion="reduce")
    fill = fill_views(page, picture)
    found = {}
    for view in VIEWS:
        page.goto(f"/#/{view}")
        fill[view]()
        found[view] = _violations(page)
    page.get_by_role("link", name="Gallery").click()
    page.locator("#gallery-shelf button").first.click()
    found["open"] = _violations(page)
    assert not [problem for problems in found.values() for problem in problems]


def _violations(page) -> list[str]:
    results = axe.Axe().run(page).response["violations"]
    bad = [one for one in results if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html']}" for one in bad for node in one["nodes"]]


def test_a_phone_needs_no_scrolling_sideways(new_page, picture: Path):
    page = new_page(viewport=PHONE, has_touch=True)
    fill = fill_views(page, picture)
    for view in VIEWS:
        page.goto(f"/#/{view}")
        fill[view]()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view


def test_colours_follow_the_system_until_they_are_chosen(new_page):
    page = new_page(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_label("Colours").select_option("light")
    light = page.evaluate(ground)
    assert _lightness(dark) < 60
    assert _lightness(light) > 200
    page.reload()
    assert page.evaluate(ground) == light
    page.get_by_label("Colours").select_option("system")
    assert page.evaluate(ground) == dark


def _lightness(colour: str) -> float:
    values = [float(value) for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(values) / 3


def test_what_is_focused_is_seen(new_page):
    page = new_page()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the view")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    assert skip.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"


def test_a_refusal_is_shown_in_its_one_line(new_page):
    page = new_page()
    choose_model(page, "paint")
    page.route("**/sample/stream", lambda route: route.fulfill(status=422, body=json.dumps({"error": f"no: {EVIL}"})))
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#paint-problem")).to_have_text(f"no: {EVIL}")
    expect(page.locator("#paint-problem")).to_have_attribute("role", "alert")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()


def test_an_answer_that_is_a_page_is_not_shown_as_one(new_page):
    page = new_page()
    choose_model(page, "paint")
    page.route("**/sample/stream", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#paint-problem")).to_have_text("the studio answered 502")


def test_a_studio_that_is_gone_is_said_to_be(new_page):
    page = new_page()
    choose_model(page, "paint")
    page.route("**/sample/stream", lambda route: route.abort())
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#paint-problem")).to_contain_text("the studio does not answer")
    page.unroute("**/sample/stream")
    paint(page)
    expect(page.locator("#paint-problem")).to_be_hidden()


def test_what_the_studio_refuses_is_said(new_page, picture: Path):
    page = new_page("edit")
    choose_model(page, "edit")
    page.locator("#edit .stage input[type=file]").set_input_files(picture)
    page.get_by_role("radio", name="Extend").check()
    page.locator("#edit input[name=right]").fill("0")
    page.locator("#edit button[type=submit]").click()
    expect(page.locator("#edit-problem")).to_contain_text("nothing is to be added")


def test_scripts_in_names_and_prompts_are_text(new_page, tmp_path: Path):
    page = new_page()
    choose_model(page, "paint")
    page.locator("#paint select[name=class]").select_option(EVIL)
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#paint-status")).to_contain_text(EVIL)
    page.get_by_role("link", name="Gallery").click()
    page.locator("#gallery-shelf button").first.click()
    expect(page.locator("#gallery-facts")).to_contain_text(EVIL)
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="Edit").click()
    page.locator("#edit .stage input[type=file]").set_input_files(picture_file(tmp_path / f"{EVIL}.png"))
    expect(page.locator("#edit [data-picker=first] [data-name]")).to_contain_text(EVIL)
    expect(page.locator("img[src=x]")).to_have_count(0)


def test_a_script_in_a_prompt_is_text(new_page):
    page = new_page()
    recipe = {"kind": "sample", "asked": {"model": "tiny", "seed": 1, "prompt": EVIL}, "number": 0, "inputs": {}}
    kept = {"id": "0" * 32, "created": 0, "height": 19, "width": 30, "recipe": recipe}
    page.route(
        "**/api/v1/gallery?*",
        lambda route: route.fulfill(json={"pictures": [kept], "next": None, "total": 1}),
    )
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator("#gallery-shelf button")).to_contain_text(EVIL)
    expect(page.locator("img[src=x]")).to_have_count(0)


def test_what_is_no_picture_is_refused_in_words(new_page, tmp_path: Path):
    path = tmp_path / "page.png"
    path.write_text("<script>alert(1)</script>")
    page = new_page("compress")
    page.locator("#compress input[accept*=png]").set_input_files(path)
    expect(page.locator("#compress-problem")).to_have_text(
        "page.png cannot be read: a JPEG, PNG or WebP picture is wanted"
    )
