"""The command line, `bisquit VERB`. Each verb is a module, imported when it is called, so that help comes at once."""

from __future__ import annotations

import importlib
import os
import sys

import click
from click.shell_completion import CompletionItem

from bisquit.errors import BisquitError, RunStopped

VERBS = {
    "frames": ("bisquit.cli.frames", "Take frames to train on from videos and screenshots."),
    "train": ("bisquit.cli.train", "Train a tokenizer, a prior over its tokens, or a network of features."),
    "tokenize": ("bisquit.cli.tokenize", "Turn a set of frames into a file of tokens."),
    "shards": ("bisquit.cli.shards", "Turn frames on any storage into shards of tokens, on one machine or many."),
    "sample": ("bisquit.cli.sample", "Paint new frames."),
    "edit": ("bisquit.cli.edit", "Fill, extend, vary, join or tile pictures."),
    "augment": ("bisquit.cli.augment", "Paint labelled frames to train others with."),
    "reconstruct": ("bisquit.cli.reconstruct", "Send pictures through their tokens and back."),
    "compress": ("bisquit.cli.compress", "Store pictures in a few hundred bytes each."),
    "decompress": ("bisquit.cli.decompress", "Get compressed pictures back."),
    "archive": ("bisquit.cli.archive", "List, get, add, check and mend the pictures of an archive."),
    "evaluate": ("bisquit.cli.evaluate", "Measure a model on frames."),
    "view": ("bisquit.cli.view", "Show what a model finds odd in a picture, and what a token looks at."),
    "studio": ("bisquit.cli.studio", "Serve the models to browsers and scripts."),
    "info": ("bisquit.cli.info", "Say what is in a model, a file of tokens or a set of frames."),
    "export": ("bisquit.cli.export", "Write a tokenizer as ONNX, for programs that have no PyTorch."),
    "push": ("bisquit.cli.push", "Save a model to the Hugging Face Hub, with its card."),
    "completion": ("bisquit.cli.completion", "Print what has a shell complete commands."),
    "doctor": ("bisquit.cli.doctor", "Say what of bisquit works on this machine, and what the rest needs."),
}


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(VERBS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Name the verbs without importing them, as click's own group would to see which are hidden."""
        verbs = [CompletionItem(name, help=text) for name, (_, text) in VERBS.items() if name.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bisquit", message="%(prog)s %(version)s")
def bisquit() -> None:
    """Pictures as short sequences of binary tokens, and one small model over them."""


def main() -> None:
    """Run the command line; what goes wrong on purpose is one line on standard error and exit status 2."""
    # Before PyTorch is imported: its threads then wait asleep. By default they spin, and where anything else runs too,
    # one that waits keeps the one that it waits for from the core: small steps take ten times as long, and more.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        bisquit(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        verb = error.ctx.command_path if error.ctx else "bisquit"
        _say(f"{error.format_message()} ({verb} --help tells more)")
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _say("stopped")
        sys.exit(130)
    except RunStopped as error:
        _say(str(error))
        sys.exit(128 + error.signal_number)
    except BisquitError as error:
        _say(str(error))
        sys.exit(2)
    except OSError as error:
        _say(f"{error.filename or 'the file system'}: {error.strerror or error}")
        sys.exit(2)


def _say(message: str) -> None:
    print(f"bisquit: {message}", file=sys.stderr)  # noqa: T201
