"""`bisquit doctor` on a machine where all works, and on others."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
import torch
from tests.cli.driver import Run

import bisquit.generate
from bisquit import doctor
from bisquit.doctor import Finding, core_works, examine
from bisquit.engine import EnginePrior, engine_missing
from bisquit.errors import ModelError

CORE = {"Python", "required packages", "PyTorch", "bundled frames", "shipped models"}


def found(findings: list[Finding], what: str) -> Finding:
    return next(finding for finding in findings if finding.what == what)


def run_check(what: str) -> Finding:
    """Return what one check finds, as `examine` would."""
    check, is_core = doctor._CHECKS[what]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "_CHECKS", {what: (check, is_core)})
        return examine()[0]


def test_the_core_works_here_and_each_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    done = run("doctor", "--json")
    facts = json.loads(done.out)
    assert done.status == 0
    assert facts["core_works"] is True
    states = {finding["what"]: finding["state"] for finding in facts["findings"]}
    tests = {"self-test: tokens", "self-test: painting"}
    assert {what for what in CORE | tests if states[what] == "works"} == CORE | tests
    assert {finding["what"] for finding in facts["findings"] if finding["is_core"]} == CORE | tests
    extras = importlib.metadata.metadata("bisquit").get_all("Provides-Extra")
    assert extras
    assert {what for what in states if what.startswith("extra ")} == {f"extra {extra}" for extra in extras}
    assert states["native engine"] == ("works" if engine_missing() is None else "missing")
    assert {"GPU", "disk for caches", "disk here"} <= set(states)
    assert list(tmp_path.iterdir()) == []


def test_a_table_says_what_to_do_and_a_core_that_fails_exits_with_1(run: Run, monkeypatch: pytest.MonkeyPatch):
    findings = [
        Finding("PyTorch", "fails", "ImportError", "install it", is_core=True),
        Finding("GPU", "missing", "none"),
    ]
    monkeypatch.setattr("bisquit.cli.doctor.examine", lambda: findings)
    done = run("doctor")
    assert done.status == 1
    for words in ("PyTorch", "fails", "ImportError", "install it", "missing", "the core does not work"):
        assert words in done.out
    assert done.err == ""
    assert run("doctor", "--json").status == 1


def test_only_what_is_core_decides():
    assert core_works([Finding("a", "works", "", is_core=True), Finding("b", "fails", ""), Finding("c", "missing", "")])
    assert not core_works([Finding("a", "works", "", is_core=True), Finding("b", "missing", "", is_core=True)])


def test_without_pytorch_the_rest_is_examined(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(bisquit.generate, "load", lambda name: pytest.fail("no model is loaded without PyTorch"))
    monkeypatch.setattr(doctor, "_CHECKS", {what: doctor._CHECKS[what] for what in ("PyTorch", "GPU", "extras")})
    findings = examine()
    assert found(findings, "PyTorch").state == "fails"
    assert "torch" in found(findings, "PyTorch").details
    assert "\n" not in found(findings, "PyTorch").details
    assert found(findings, "GPU").state == "fails"
    assert any(finding.what.startswith("extra ") for finding in findings)
    assert not core_works(findings)


def test_extras_and_what_they_lack_are_read_from_the_metadata(monkeypatch: pytest.MonkeyPatch):
    required = [
        "numpy>=1",
        "no-such-thing>=2; python_version < '3'",
        "pillow>=11; extra == 'pictures'",
        "pillow<1; extra == 'old'",
        "no-such-thing>=2,<3; extra == 'other'",
        "numpy>=1; extra == 'other'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: required)
    assert doctor._lacking(doctor._requirements("")) == []
    assert [str(one.name) for one in doctor._requirements("")] == ["numpy"]
    assert doctor._lacking(doctor._requirements("pictures")) == []
    (old,) = doctor._lacking(doctor._requirements("old"))
    assert old == f"pillow {importlib.metadata.version('pillow')} is not pillow<1"
    assert doctor._lacking(doctor._requirements("other")) == ["no no-such-thing<3,>=2"]


def test_a_missing_required_package_fails_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["no-such-thing>=2"])
    finding = run_check("required packages")
    assert (finding.state, finding.details) == ("fails", "no no-such-thing>=2")
    assert "pip install" in finding.remedy


def test_without_the_engine_pytorch_alone_is_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bisquit.engine.native._MISSING", "no compiler")
    engine = run_check("native engine")
    assert (engine.state, engine.details) == ("missing", "no compiler")
    assert "C++ compiler" in engine.remedy
    assert run_check("self-test: painting") == Finding("self-test: painting", "works", "PyTorch paints", is_core=True)


@pytest.mark.skipif(engine_missing() is not None, reason="the native engine is not built")
@pytest.mark.parametrize("method", ["paint", "logits"])
def test_an_engine_that_computes_something_else_fails(monkeypatch: pytest.MonkeyPatch, method: str):
    original = getattr(EnginePrior, method)
    monkeypatch.setattr(EnginePrior, method, lambda *given, **named: original(*given, **named) + 1)
    finding = run_check("self-test: painting")
    assert finding.state == "fails"
    assert "different" in finding.details
    assert "--backend torch" in finding.remedy


def test_a_model_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch):
    def load(name: str) -> None:
        raise ModelError(f"{name} is cut or damaged")

    monkeypatch.setattr(bisquit.generate, "load", load)
    finding = run_check("shipped models")
    assert finding.state == "fails"
    assert "is cut or damaged" in finding.details


def test_a_tokenizer_that_gives_nothing_back_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        bisquit.generate.Pipeline, "_decode", lambda self, tokens, size: torch.zeros(1, *size, 3).byte().numpy()
    )
    finding = run_check("self-test: tokens")
    assert finding.state == "fails"
    assert finding.is_core


def test_little_room_is_low_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bisquit.doctor.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**20}))
    monkeypatch.setattr(doctor, "_machine_memory", lambda: 2**40)
    monkeypatch.setattr(doctor, "_group_memory", lambda: 2**29)
    assert run_check("disk").state == "low"
    assert "BISQUIT_CACHE" in run_check("disk").remedy
    assert run_check("memory") == Finding(
        "memory", "low", "0.5 GiB free", "close other programs, or train with a smaller --batch-size"
    )
