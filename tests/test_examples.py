"""Examples in the documents: commands are ones that the command line takes, and Python runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bisquit.cli.main import bisquit

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = sorted((ROOT / "src" / "bisquit" / "weights").glob("*/README.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ELLIPSIS = "..."


def blocks(page: Path, language: str) -> Iterator[str]:
    """Yield the fenced blocks of a language on a page."""
    for found, text in _BLOCK.findall(page.read_text()):
        if found == language:
            yield text


def commands(page: Path) -> Iterator[str]:
    """Yield the lines on a page that call `bisquit`, those that go on joined: in blocks of shell, or indented."""
    text = "\n".join(blocks(page, "sh")) if page in PAGES else page.read_text()  # cards indent theirs
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip().startswith("bisquit "):
            yield line.strip()


def mentions(page: Path) -> Iterator[str]:
    """Yield the commands that a page's sentences mention: what they leave out is understood."""
    for command in re.findall(r"`(bisquit [a-z][^`]*)`", _BLOCK.sub("", page.read_text())):
        yield " ".join(command.split())


def verb_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words name, after `bisquit`, and what is left of them."""
    command: click.Command = bisquit
    while isinstance(command, click.Group) and words and words[0] != _ELLIPSIS:
        named = command.get_command(click.Context(command), words[0])
        if named is None:
            raise click.UsageError(f"there is no {words[0]}")
        command, words = named, words[1:]
    return command, words


def check_command(line: str) -> None:
    """Raise click.UsageError unless the command line takes a command; one with an ellipsis may lack what it needs."""
    command, words = verb_of(shlex.split(line, comments=True)[1:])
    if _ELLIPSIS in words:
        check_flags(line)
    else:
        command.make_context("example", words)


def check_flags(line: str) -> None:
    """Raise click.UsageError if a command has verbs or flags that there are not."""
    command, words = verb_of(shlex.split(line, comments=True)[1:])
    try:
        command.make_parser(click.Context(command)).parse_args([word for word in words if word != _ELLIPSIS])
    except click.BadOptionUsage:
        assert words[-1].startswith("-"), line  # a flag that is mentioned without its value


WRITTEN = [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in commands(page)]
MENTIONED = [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in mentions(page)]
ON_CARDS = [pytest.param(line, id=f"{page.parent.name}: {line}") for page in CARDS for line in commands(page)]
CODE = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("line", WRITTEN)
def test_a_command_in_the_documents_is_one_that_can_be_given(line: str):
    check_command(line)


@pytest.mark.parametrize("line", MENTIONED + ON_CARDS)
def test_a_command_that_is_mentioned_has_verbs_and_flags_that_there_are(line: str):
    check_flags(line)


@pytest.mark.parametrize("code", CODE)
def test_python_in_the_documents_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(
    "line",
    [
        "bisquit sample --model best -o a.png --no-such-flag",
        "bisquit paint --model best",
        "bisquit sample --model best",
        "bisquit train prior --preset seed --no-such-flag ...",
        "bisquit sample --model best -n many -o a.png",
    ],
)
def test_a_command_that_cannot_be_given_would_be_found(line: str):
    with pytest.raises(click.UsageError):
        check_command(line)


def test_the_documents_have_examples():
    assert len(WRITTEN) > 30
    assert len(MENTIONED) > 10
    assert len(ON_CARDS) >= len(CARDS)
    assert len(CODE) >= 2
