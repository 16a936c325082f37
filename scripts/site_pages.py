"""A hook of MkDocs: pages of the site that lie elsewhere, README, CONTRIBUTING and CHANGELOG.

Their links to documents are those of the site then; links to what is no page of it become plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|`[^`]*`)*)\]\(([^):#]+)\)")  # to a path, not to an address


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=for_site((ROOT / name).read_text())))
    return files


def for_site(text: str) -> str:
    """Return a page of the repository with its links as the site has them."""
    return _LINK.sub(_linked, text)


def _linked(link: re.Match[str]) -> str:
    mark, shown, target = link.groups()
    page = PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
    return f"{mark}[{shown}]({page})" if page else shown
