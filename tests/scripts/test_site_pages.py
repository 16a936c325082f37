"""The site: pages that lie elsewhere link to what is on it, and every document and public name has its place."""

from __future__ import annotations

import pytest
import site_pages

import bisquit

ROOT = site_pages.ROOT


@pytest.mark.parametrize(
    ("written", "on_site"),
    [
        ("see [results](docs/results.md).", "see [results](results.md)."),
        ("![16 of `best`](docs/images/best.jpg)", "![16 of `best`](images/best.jpg)"),
        ("a [table](src/bisquit/captions/supertuxkart.toml) that", "a table that"),
        (
            "[how](CONTRIBUTING.md), [page](https://example.org/a)",
            "[how](CONTRIBUTING.md), [page](https://example.org/a)",
        ),
    ],
)
def test_links_are_those_of_the_site(written: str, on_site: str):
    assert site_pages.for_site(written) == on_site


def test_every_document_is_in_the_navigation():
    named = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs" / page for page in site_pages.PAGES.values())]:
        assert page.relative_to(ROOT / "docs").as_posix() in named


def test_every_public_name_is_described():
    lines = (ROOT / "docs" / "api.md").read_text().splitlines()
    described = {line.rpartition(".")[2] for line in lines if line.startswith("::: ")}
    assert set(bisquit.__all__) <= described
