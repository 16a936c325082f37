"""The pages that come with the studio: whole, of the right types, and within the policy that they are served under."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from bisquit.studio.app import PAGES

MODULES = sorted((PAGES / "js").glob("*.js"))
STYLES = sorted((PAGES / "css").glob("*.css"))
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LARGEST_MODULE_LINES = 400


class _Page(HTMLParser):
    """What a page consists of: the attributes of its elements, its ids, and what scripts and styles hold."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.within: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip() and self.elements[-1][0] in ("script", "style"):
            self.within.append(data)

    @property
    def ids(self) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get("id"))]


@pytest.fixture(scope="module")
def page() -> _Page:
    found = _Page()
    found.feed((PAGES / "index.html").read_text())
    return found


def test_every_file_is_served_as_what_it_is(open_studio):
    client: TestClient = open_studio(PAGES)
    assert client.get("/").text == (PAGES / "index.html").read_text()
    for path in PAGES.rglob("*.*"):
        answer = client.get("/" + path.relative_to(PAGES).as_posix())
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] == TYPES[path.suffix]
        assert answer.content == path.read_bytes()


def test_the_page_holds_no_script_and_no_style_of_its_own(page: _Page):
    assert not page.within
    for tag, attributes in page.elements:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_what_the_page_names_is_there(page: _Page):
    named = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    for name in named:
        assert name
        if not name.startswith("#"):
            assert (PAGES / name).is_file(), name
    referred = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(referred) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_imports_what_is_there_and_finds_what_the_page_has(path: Path, page: _Page):
    text = path.read_text()
    assert text.count("\n") <= LARGEST_MODULE_LINES
    for name in re.findall(r"""(?:from|import) "([^"]+)";""", text):
        assert (path.parent / name).is_file(), name
    for identity in re.findall(r"""find\("#([\w-]+)""", text):
        assert identity in page.ids


@pytest.mark.parametrize("path", [*MODULES, *STYLES], ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup(path: Path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[\w.-]+\.\w+/|@import", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
