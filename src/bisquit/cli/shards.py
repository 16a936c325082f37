"""`bisquit shards`: frames on any storage into shards of tokens, for sets that no machine holds."""

from __future__ import annotations

import click

from bisquit.cli.options import FrameSize, progress_bar, tokenizer_option, workers_options
from bisquit.generate import load
from bisquit.shards import TokenizePieces, begin, in_this_process, tokenize_shards


@click.command()
@tokenizer_option
@click.option("--frames", required=True, help="Parquet files on any storage, such as 's3://bucket/frames/*.parquet'.")
@click.option("-o", "--output", required=True, help="The folder of the shards on any storage.")
@click.option("--size", required=True, type=FrameSize(), help="The frames' height x width; others are resized to it.")
@click.option(
    "--piece-frames", type=click.IntRange(min=1), default=4096, show_default=True, help="Most frames of a shard."
)
@workers_options
@click.option("--skip-bad", is_flag=True, help="Leave out pictures that cannot be read; else the first one stops it.")
def command(
    model: str,
    frames: str,
    output: str,
    size: tuple[int, int],
    piece_frames: int,
    workers: int | None,
    ray_address: str | None,
    skip_bad: bool,
) -> None:
    """Turn Parquet files of frames into a folder of shards of tokens, one for each piece of a row group.

    The same command again makes the shards that are missing.
    """
    way: TokenizePieces = in_this_process
    if workers is not None:
        from bisquit.on_ray import OnRay

        way = OnRay(workers, ray_address)
    tokenizer = load(model).tokenizer
    work = begin(tokenizer, frames, output, size, piece_frames, skip_bad)
    with progress_bar("tokenizing") as progress:
        count = tokenize_shards(tokenizer, work, way, progress)
    before = work.total - len(work.pieces)
    click.echo(f"{count:,} frames in {len(work.pieces):,} shards, {before:,} were there before, in {output}")
