"""`bisquit push`: a model to the Hugging Face Hub, with its card."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bisquit.card import card_of_run
from bisquit.cli.options import MODEL, OUTPUT
from bisquit.errors import ModelError
from bisquit.generate import load
from bisquit.record import RECORD_FILE


@click.command()
@click.argument("model", metavar="MODEL", type=MODEL)
@click.argument("name", metavar="OWNER/NAME[@BRANCH]")
@click.option("--figures", type=OUTPUT, help="What `bisquit evaluate --json` wrote, for the card.")
@click.option("--licence", help="The licence of the weights as the Hub names it, such as cc-by-4.0, for the card.")
@click.option("--private", is_flag=True, help="Make the repository private, if there is none yet.")
@click.option("--message", help="The commit's.")
def command(
    model: str, name: str, figures: Path | None, licence: str | None, private: bool, message: str | None
) -> None:
    """Save a model to the Hugging Face Hub, as one commit: tokenizer, prior and card.

    MODEL is a folder that `bisquit train` made, whose card is made of its record, or any other model that has a card.
    It is then `--model hf://OWNER/NAME` on every machine. Log in first, with `hf auth login`.
    """
    pipeline, folder = load(model), Path(model)
    if (folder / RECORD_FILE).is_file():
        measured = _read_figures(figures) if figures else None
        title = name.partition("@")[0].rpartition("/")[2]
        pipeline.card = card_of_run(folder, name=title, figures=measured, licence_id=licence)
    elif figures or licence:
        raise click.UsageError(f"--figures and --licence are for the folder of a run, and {model} is none")
    address = pipeline.push_to_hub(name, private=private, message=message)
    click.echo(f"{model} is at {address}")


def _read_figures(path: Path) -> dict[str, object]:
    """Return the figures in a file. Raises ModelError if it holds no JSON object."""
    try:
        figures = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: name what `bisquit evaluate --json` wrote") from error
    if not isinstance(figures, dict):
        raise ModelError(f"{path} holds no figures: name what `bisquit evaluate --json` wrote")
    return figures
