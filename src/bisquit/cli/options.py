"""Flags that several verbs share, and a progress bar for work that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bisquit.engine import BACKENDS, PRECISIONS
from bisquit.frames import BUNDLED, FrameSet, load_frames, load_splits

if TYPE_CHECKING:
    from bisquit.generate import Pipeline

Function = TypeVar("Function", bound=Callable[..., Any])
OUTPUT = click.Path(path_type=Path)


class FrameSize(click.ParamType[tuple[int, int]]):
    """A size in pixels, height x width, such as 100x150."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        height, _, width = value.lower().partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value} must be height x width in pixels, such as 100x150", param, ctx)
        return int(height), int(width)


class Named(click.ParamType[str]):
    """A name of something that there is, or else of a file or folder; a shell completes both. Any text is taken."""

    def __init__(
        self, name: str, names: Callable[[], Iterable[str]], else_a: Literal["file", "dir"] | None = None
    ) -> None:
        """name: what help calls it. names: of what there is, asked for when a shell wants to know."""
        self.name, self._names, self._else_a = name, names, else_a

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        paths = [CompletionItem(incomplete, type=self._else_a)] if self._else_a else []
        return paths + [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


def _shipped() -> list[str]:
    from bisquit.generate import shipped_models  # which imports PyTorch

    return shipped_models()


MODEL = Named("model", _shipped, "dir")
FRAMES = Named("frames", lambda: (BUNDLED,), "file")


def frames_options(function: Function) -> Function:
    """Add the flags that say how frames are read."""
    function = click.option(
        "--skip-bad",
        is_flag=True,
        help="Leave out pictures that cannot be read, and count them; else the first one stops the run.",
    )(function)
    return click.option(
        "--size",
        type=FrameSize(),
        default=None,
        help="Resize every frame to this height x width, such as 100x150; else all must be of one size.",
    )(function)


def tokenizer_option(function: Function) -> Function:
    """Add the flag that names a tokenizer, as `model`."""
    return click.option(
        "--tokenizer",
        "model",
        required=True,
        type=MODEL,
        help="A folder that `bisquit train tokenizer` made, or a shipped model.",
    )(function)


def part_option(function: Function) -> Function:
    """Add the flag that says which part of the frames is meant."""
    return click.option(
        "--part",
        type=click.Choice(["all", "train", "valid"]),
        default="all",
        show_default=True,
        help="All frames, or the part that `bisquit train tokenizer` trains on, or the one that it holds out.",
    )(function)


def read_frames(source: str, size: tuple[int, int] | None, skip_bad: bool, part: str = "all") -> FrameSet:
    """Return the frames of a source, or a part of them, with a progress bar and a word on those that were left out."""
    with progress_bar("reading frames") as progress:
        if part == "all":
            frames = load_frames(source, size=size, skip_bad=skip_bad, progress=progress)
        else:
            train, valid = load_splits(source, size=size, skip_bad=skip_bad, progress=progress)
            frames = train if part == "train" else valid
    report_skipped(frames.skipped)
    return frames


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of what is done and what there is to do; it draws a bar where standard error is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def png_names(names: Sequence[str]) -> list[Path]:
    """Return a PNG's name for each frame's: icy/003.jpg gives icy/003.png, or icy/003.jpg.png if two would be alike."""
    plain = [Path(name) if "#" in name else Path(name).with_suffix("") for name in names]
    chosen = plain if len(set(plain)) == len(names) else [*map(Path, names)]
    found: dict[Path, None] = {}
    for path in chosen:
        png = path.with_name(f"{path.name.replace('#', '-')}.png")
        number = 2
        while png in found:  # two names that differ in no more than what a file's may not have
            png, number = png.with_stem(f"{png.stem}-{number}"), number + 1
        found[png] = None
    return list(found)


def numbered(output: Path, i: int, number: int) -> Path:
    """Return the name of picture i of `number`: sheet.png gives sheet-03.png, a folder gives folder/03.png."""
    digits = f"{i:0{len(str(number - 1))}d}"
    return output.with_stem(f"{output.stem}-{digits}") if output.suffix else output / f"{digits}.png"


def report_skipped(skipped: tuple[str, ...]) -> None:
    """Say on standard error how many pictures were left out, and which."""
    if skipped:
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        click.echo(f"left out {len(skipped)} that could not be read: {', '.join(skipped[:5])}{more}", err=True)


def seed_option(function: Function) -> Function:
    """Add the flag that says which pictures are painted."""
    return click.option(
        "--seed",
        type=int,
        default=0,
        show_default=True,
        help="A seed's frame i is the same however many are painted, and however many at a time.",
    )(function)


def condition_options(function: Function) -> Function:
    """Add the flags that say what pictures are to show."""
    function = click.option("--prompt", help="What they are to show, in words, for a model that knows words.")(function)
    return click.option("--class", "class_name", help="The class that they are to show, such as a track.")(function)


def device_option(function: Function) -> Function:
    """Add the flag that says where a model runs."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        callback=_device,
        help="Where the model runs: auto, cpu, cuda, cuda:1 ...",
    )(function)


def _device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    import torch

    if value == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=value)
    except (RuntimeError, AssertionError) as error:
        raise click.BadParameter(f"{value} is no device of this machine") from error
    return value


def backend_options(default: str) -> Callable[[Function], Function]:
    """Return a decorator that adds the flags that say how a prior is computed, with a default backend."""

    def add(function: Function) -> Function:
        function = click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="float32",
            show_default=True,
            help="Arithmetic of the prior: int8 is fastest on a CPU, bfloat16 on a GPU.",
        )(function)
        return click.option(
            "--backend",
            type=click.Choice(BACKENDS),
            default=default,
            show_default=True,
            help="What computes the prior: the native engine, PyTorch, or the faster of those that can.",
        )(function)

    return add


def workers_options(function: Function) -> Function:
    """Add the flags that have Ray do the work."""
    function = click.option(
        "--ray-address",
        callback=_check_workers,
        help="The Ray cluster whose machines do the work, such as auto; else this machine.",
    )(function)
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        is_eager=True,
        help="Have Ray do the work, by so many workers of a core each.",
    )(function)


def _check_workers(context: click.Context, option: click.Parameter, ray_address: str | None) -> str | None:
    """Return the address of a cluster. Raises UsageError if it is not to do anything."""
    if ray_address is not None and context.params["workers"] is None:
        raise click.UsageError("--ray-address is for --workers: pass both")
    return ray_address


def with_workers(pipeline: Pipeline, workers: int | None, ray_address: str | None) -> Pipeline:
    """Return a pipeline whose pictures workers paint, where there are to be any, else as it is."""
    if workers is None:
        return pipeline
    from bisquit.on_ray import PipelineOnRay

    return PipelineOnRay(pipeline, workers, ray_address)
