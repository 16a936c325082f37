"""`bisquit completion`: what has a shell complete verbs, flags, models and presets."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that has a shell complete verbs, flags, names of models and presets, and files.

    For bash, put `eval "$(bisquit completion bash)"` into ~/.bashrc; zsh likewise, into ~/.zshrc; for fish, put
    `bisquit completion fish | source` into ~/.config/fish/config.fish.
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "bisquit", "_BISQUIT_COMPLETE").source())
