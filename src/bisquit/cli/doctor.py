"""`bisquit doctor`: what of bisquit works on this machine, and what the rest needs."""

from __future__ import annotations

import dataclasses
import json
import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bisquit.doctor import Finding, core_works, examine

_COLOURS = {"works": "green", "low": "yellow", "missing": "yellow", "fails": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """Say what of bisquit works on this machine, and what to install for the rest.

    It reads the bundled frames and the models that ship, and tries them; nothing is trained, and nothing stays on the
    disk. Exits with 1 if the core does not work.
    """
    findings = examine()
    works = core_works(findings)
    if as_json:
        facts = {"core_works": works, "findings": [dataclasses.asdict(finding) for finding in findings]}
        click.echo(json.dumps(facts, indent=2))
    else:
        Console().print(_table(findings))
        click.echo("the core works" if works else "the core does not work")
    if not works:
        sys.exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table(show_header=False)
    for finding in findings:
        said = Text(finding.details)
        if finding.remedy:
            said.append(f"\n{finding.remedy}", style="bold")
        table.add_row(Text(finding.what), Text(finding.state, style=_COLOURS[finding.state]), said)
    return table
