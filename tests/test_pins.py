"""What is installed: all that pyproject.toml asks for, pinned in locks/ with hashes, and nothing else by the set-up."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = {path.stem: path.read_text() for path in (ROOT / "locks").glob("*.txt")}
SETUP = ("torch", "runtime", "build", "dev")


def pins(*locks: str) -> dict[str, str]:
    """Return the release of each package that some files pin."""
    found = [pin for lock in locks for pin in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCKS[lock], re.MULTILINE)]
    assert len(found) == len({name for name, _ in found}), "a package is pinned twice"
    return {canonicalize_name(name): release for name, release in found}


@pytest.mark.parametrize("extra", ["", "build", *EXTRAS])
def test_all_that_is_asked_for_is_pinned(extra: str) -> None:
    asked = {"": PROJECT["project"]["dependencies"], "build": PROJECT["build-system"]["requires"]} | EXTRAS
    pinned = pins(*SETUP, *({extra} & LOCKS.keys() - set(SETUP)))
    for requirement in map(Requirement, asked[extra]):
        assert pinned.get(canonicalize_name(requirement.name), "none") in requirement.specifier, requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(lock: str) -> None:
    entries = re.sub(r"#.*\n| \\\n", "", LOCKS[lock]).splitlines()
    assert len(entries) == len(pins(lock)) > 0
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[^\s;]+( ; [^-]+?)?(    --hash=sha256:[0-9a-f]{64})+", entry), entry[:100]


def test_files_that_pin_the_same_package_pin_the_same_release() -> None:
    releases: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, release in pins(lock).items():
            releases.setdefault(name, set()).add(release.removesuffix("+cpu"))
    assert {name: found for name, found in releases.items() if len(found) > 1} == {}


def test_make_installs_nothing_else() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "pip install -qq --disable-pip-version-check --no-deps\nLOCKED := $(PIP) --require-hashes\n" in makefile
    assert makefile.count("pip install") == 1
    assert re.findall(r"\$\(PIP\) (?!--require-hashes)(.*)", makefile) == ["--no-build-isolation --editable ."]
    named = re.findall(r"locks/([\w-]+)\.txt", makefile)
    assert set(named) == LOCKS.keys()


def test_workflows_use_commits_and_not_tags_that_may_move() -> None:
    used = [
        line
        for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for line in re.findall(r"uses: (.*)", path.read_text())
    ]
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
