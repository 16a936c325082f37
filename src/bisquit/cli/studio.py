"""`bisquit studio`: the models behind HTTP, for a browser or scripts on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bisquit.cli.options import device_option
from bisquit.cli.settings import override, settings_options
from bisquit.errors import ConfigError
from bisquit.studio.limits import Limits

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=8765, show_default=True, help="The port to listen at.")
@click.option(
    "--data",
    type=FOLDER,
    default=None,
    help="Where the gallery is kept; by default ~/.local/share/bisquit/studio, or below $XDG_DATA_HOME.",
)
@click.option("--runs", type=FOLDER, default=None, help="The folder below which training runs are shown.")
@click.option(
    "--model",
    "models",
    type=FOLDER,
    multiple=True,
    help="The folder of a further model, which is served under the folder's name; may be given several times.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    help="A name, beside this machine's own, by which browsers may call the studio; may be given several times.",
)
@device_option
@settings_options(Limits)
def command(
    host: str,
    port: int,
    data: Path | None,
    runs: Path | None,
    models: tuple[Path, ...],
    hosts: tuple[str, ...],
    device: str,
    **given: Any,
) -> None:
    """Serve the models to browsers and scripts: painting, editing, looking into, storing, and a gallery.

    It knows no users and no passwords: whoever reaches --host can use it.
    """
    try:
        from bisquit.studio.app import serve
        from bisquit.studio.studio import StudioConfig
    except ImportError as error:
        remedy = "pip install 'bisquit[studio]'"
        raise ConfigError(f"the studio needs {error.name}, which is not installed: {remedy}") from error
    config = StudioConfig(
        data=data or _data_folder(),
        runs=runs,
        models=_named(models),
        hosts=hosts,
        device=device,
        limits=override(Limits(), given),
    )
    click.echo(f"the studio is at http://{f'[{host}]' if ':' in host else host}:{port}, its gallery in {config.data}")
    serve(config, host, port)


def _named(folders: tuple[Path, ...]) -> Mapping[str, Path]:
    """Return folders by their names. Raises ConfigError if two are alike."""
    named = {folder.resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise ConfigError("two folders of --model have the same name: rename one")
    return named


def _data_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "bisquit" / "studio"
