"""The container file, as far as it can be told without building it: what it copies, installs and runs is there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Instruction(NamedTuple):
    """One instruction, its continued lines joined."""

    name: str
    rest: str


@pytest.fixture(scope="module")
def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage, from its FROM on."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append(Instruction(name, rest.strip()))
    return found


def copied(stage: list[Instruction]) -> list[str]:
    """Return what a stage copies from here."""
    copies = [shlex.split(rest) for name, rest in stage if name == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def test_what_is_copied_is_there_and_not_ignored(stages: list[list[Instruction]]):
    sources = [source for stage in stages for source in copied(stage)]
    assert {"src", "native", "locks"} <= set(sources)
    lines = (ROOT / ".containerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source


def test_what_the_package_is_built_from_is_copied(stages: list[list[Instruction]]):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {project["tool"]["scikit-build"]["cmake"]["source-dir"], "src"}
    assert needed <= set(copied(stages[0]))


def test_pip_installs_nothing_but_what_the_locks_pin_with_hashes(stages: list[list[Instruction]]):
    (run,) = [rest for stage in stages for name, rest in stage if name == "RUN" and "pip install" in rest]
    assert '"$pip install --no-cache-dir --no-deps"' in run
    steps = re.findall(r"\$install ([^&;|]+)", run)
    own = [step for step in steps if "--require-hashes" not in step]
    assert [step.split() for step in own] == [["--no-build-isolation", "."]]
    named = set(re.findall(r"locks/[\w-]+\.txt", " ".join(steps)))
    assert named == {f"locks/{name}.txt" for name in ("torch-cpu", "torch", "cuda", "runtime", "build")}


def test_the_last_stage_has_no_compiler_no_root_and_runs_bisquit(stages: list[list[Instruction]]):
    build, last = stages
    built_as = build[0].rest.rpartition(" AS ")[2]
    assert any(name == "COPY" and rest.startswith(f"--from={built_as} ") for name, rest in last)
    assert not any(tool in rest for _, rest in last for tool in ("g++", "pip install"))
    names = [name for name, _ in last]
    user = dict(last)["USER"]
    assert user not in ("root", "0")
    assert f"useradd --uid 1000 --create-home {user}" in dict(last)["RUN"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert dict(last)["ENTRYPOINT"] == '["bisquit"]'
    assert "bisquit" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
