"""Kills every long command at random moments, or takes from it what it needs, and says what was lost.

    python scripts/faults.py [--times 100] [--troubles 10] [--only "train tokenizer" ...]

Each command works on a tiny set, in a process forked from this one, which has imported what it imports: that takes
longer than the rest. It is killed (SIGKILL, with whatever it started) at a moment drawn evenly from the time that it
takes, and started again as its help says. Then

    just after the kill   each file under a name that readers take can be read, and what was there before is there
    at the end            what it made is, byte for byte, what it makes when nothing stops it; a run leaves no scrap

Then, --troubles times each, without a kill: files cannot grow any more (as on a full disk, from a size drawn at random
on), the folder cannot be written to, the clock jumps, what the command reads vanishes, or a second process does the
same in the same place; each of the last two at a moment drawn at random. Whatever stops a command so must be told in
one line, what is there must be whole, and once the trouble is over the command goes on to the same end.

docs/faults.md is written anew, from what --record holds of each command: a run that was stopped goes on. The last line
is one JSON object. It exits with an error if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from bisquit.atomic import atomic_file
from bisquit.cli.main import VERBS
from bisquit.cli.main import bisquit as verbs
from bisquit.codec import Archive
from bisquit.errors import BisquitError, FrameError
from bisquit.frames import encode_png, load_frames
from bisquit.locks import HOLDER_FILE, LOCK_FILE
from bisquit.priors import KINDS
from bisquit.studio.gallery import Gallery

ROOT = Path(__file__).resolve().parent.parent
SIZE = 12, 16
CLASSES = "dusk", "noon"
OF_A_CLASS = 8
TINY = ("--preset", "demo", "--batch-size", "4", "--epochs", "3", "--checkpoint-minutes", "0.0001")
KEPT = 50
"""Pictures that the gallery is given each time."""
INPUTS = "in"
"""Where a command finds what it reads, in its folder: a link to what all have in common."""
LONGEST_S = 600
"""What takes longer hangs."""


@dataclass(frozen=True)
class Case:
    """A command that takes long."""

    name: str
    prepare: Callable[[Path], object]
    """Makes what the command starts from, in a folder."""
    start: Callable[[Path], object]
    """Runs the command."""
    go_on: Callable[[Path], object]
    """Runs it again, after it was stopped or not."""
    made: Callable[[Path], str]
    """Names what it made."""
    holds: Callable[[Path], bool] = lambda folder: True
    """Whether all is still there that must not be lost, just after a kill."""


@dataclass
class Found:
    """What became of a command that was killed again and again."""

    seconds: float
    """How long it takes when nothing stops it."""
    kills: int = 0
    """How often it was killed before its end."""
    went_on: int = 0
    """How often it then did what was left, or all, as if nothing had been."""
    lost: list[str] = field(default_factory=list)
    """What went wrong."""
    told: dict[str, int] = field(default_factory=dict)
    """How often each trouble stopped it, and it said so in one line."""


@dataclass(frozen=True)
class Trouble:
    """Something that a command needs and does not get."""

    name: str
    start: Callable[[Case, Path, random.Random], object]
    """Runs the command in a folder, in trouble, until that is over. Raises Told if it was stopped and said why."""


def within(begin: Callable[[Path, random.Random], object]) -> Callable[[Case, Path, random.Random], object]:
    """Return how a command is run in a process in which something is brought about first."""
    return lambda case, folder, moments: run(case.start, folder, trouble=lambda: begin(folder, moments))


def fill_disk(folder: Path, moments: random.Random) -> None:
    """Let no file grow beyond a size, drawn with small ones as likely as large ones."""
    most = int(2 ** moments.uniform(0, 18))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def end_trouble() -> None:
    """Let files grow again."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def close_folder(folder: Path, moments: random.Random) -> None:
    """Have every new file in the folder be refused, as in one that may only be read."""
    make = os.open

    def refuse(path: str | bytes | int, flags: int, *more: int, **named: int | None) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(folder)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return make(path, flags, *more, **named)

    os.open = refuse  # by which temporary files are made; whoever may do anything is not held up by a folder's mode


def jump(folder: Path, moments: random.Random) -> None:
    """Have the clock jump, days back and days on, each time that it is read."""
    now = time.time
    time.time = lambda: now() + moments.uniform(-1e6, 1e6)


def vanish(case: Case, folder: Path, moments: random.Random) -> None:
    """Run a command, and take away what it reads at a moment drawn with early ones as likely as late ones."""
    there, gone = folder / INPUTS, folder / f".{INPUTS}"
    after_s = 2 ** moments.uniform(-8, 2)

    def take() -> None:
        removal = threading.Timer(after_s, os.rename, (there, gone))
        removal.daemon = True
        removal.start()

    try:
        run(case.start, folder, trouble=take)
    finally:
        if gone.is_symlink():
            gone.rename(there)


def start_twice(case: Case, folder: Path, moments: random.Random) -> None:
    """Run a command, and once more beside itself: either goes to its end, or says why not."""
    first = begin(case.start, folder)
    time.sleep(2 ** moments.uniform(-8, 2))
    second = begin(case.start, folder)
    said: list[Ended] = []
    for child in (first, second):
        try:
            end(child)
        except Ended as error:
            said.append(error)
    if len(said) == 2:
        raise Ended(f"neither of two goes on: {said[0]}; {said[1]}")
    if said:
        raise said[0]


TROUBLES = (
    Trouble("full disk", within(fill_disk)),
    Trouble("read-only folder", within(close_folder)),
    Trouble("jumping clock", within(jump)),
    Trouble("vanished input", vanish),
    Trouble("second process", start_twice),
)


def cases(common: Path) -> Iterator[Case]:
    """Yield all cases. common: a folder with frames, tokenizers, tokens and a model, by `prepare_common`."""

    def link(folder: Path) -> None:
        (folder / INPUTS).symlink_to(common)

    def case(name: str, *arguments: str, again: tuple[str, ...] = (), made: Callable[[Path], str] = digest) -> Case:
        def at(folder: Path, more: tuple[str, ...] = ()) -> object:
            given = (argument.replace("IN/", f"{folder / INPUTS}/") for argument in arguments)
            return command(*(argument.replace("OUT", str(folder / "out")) for argument in given), *more)

        return Case(name, link, at, lambda folder: at(folder, again), made)

    training = {"again": ("--resume",), "made": weights}
    on_frames = ("--frames", "IN/frames", "--out", "OUT", *TINY)
    yield case("train tokenizer", "train", "tokenizer", *on_frames, "--width", "8", **training)
    yield case("train features", "train", "features", *on_frames, **training)
    for kind in KINDS:
        tokens = f"IN/tokens-{quantizer_of(kind)}.safetensors"
        on_tokens = ("--tokens", tokens, "--valid-tokens", tokens, "--out", "OUT", *TINY, "--width", "8")
        yield case(f"train prior, {kind}", "train", "prior", "--prior", kind, *on_tokens, **training)
    model = ("--model", "IN/model")
    coded = ("--tokenizer", "IN/tokenizer-bsq", "--frames", "IN/frames")
    yield case("tokenize", "tokenize", *coded, "-o", "OUT.safetensors")
    yield case("reconstruct", "reconstruct", *model, "IN/frames", "-o", "OUT")
    yield case("compress", "compress", *model, "IN/frames", "-o", "OUT.bisq")
    yield case("augment", "augment", *model, "--per-class", "4", "-o", "OUT")
    yield case("evaluate", "evaluate", *model, "--frames", "IN/frames", "--json", "OUT.json", made=figures)
    yield appending(link)
    yield keeping()


def appending(link: Callable[[Path], object]) -> Case:
    """An archive grows: what was in it stays whatever happens, and pictures that are missing can be added again."""
    before = 3

    def pictures(folder: Path) -> list[str]:
        return [str(path) for path in sorted((folder / INPUTS / "frames").glob("*/*.png"))]

    def model(folder: Path) -> tuple[str, str]:
        return "--model", str(folder / INPUTS / "model")

    def names(folder: Path) -> dict[str, bytes]:
        with Archive(folder / "out.bisq") as archive:
            return {entry.name: archive.read(entry) for entry in archive}

    def prepare(folder: Path) -> None:
        link(folder)
        command("compress", *pictures(folder)[:before], "-o", str(folder / "out.bisq"), *model(folder))

    def append(folder: Path) -> object:
        there = names(folder)
        missing = [path for path in pictures(folder) if Path(path).name not in there]
        return command("archive", "append", str(folder / "out.bisq"), *missing, *model(folder)) if missing else None

    def holds(folder: Path) -> bool:
        command("archive", "verify", str(folder / "out.bisq"), *model(folder))
        return len(names(folder)) >= before

    return Case("archive append", prepare, append, append, lambda folder: repr(sorted(names(folder).items())), holds)


def keeping() -> Case:
    """The gallery is given pictures: those that it said it kept are there, and each that it lists can be read."""
    png = encode_png(np.zeros((4, 6, 3), dtype=np.uint8))

    def keep(folder: Path) -> None:
        gallery = Gallery(folder / "gallery", 10**6)
        with (folder / "said").open("a", buffering=1) as said:
            for number in range(KEPT):
                inputs = {"0" * 64: png} if number % 2 else {}
                said.write(gallery.add(png, (4, 6), {"number": number}, inputs) + "\n")

    def holds(folder: Path) -> bool:
        gallery = Gallery(folder / "gallery", 10**6)
        said = (folder / "said").read_text().split() if (folder / "said").exists() else []
        return all(gallery.png(entry.id) == png for entry in gallery.page(10**6).entries) and all(
            gallery.png(identity) == png for identity in said if len(identity) == 32
        )

    return Case("gallery", lambda folder: None, keep, keep, lambda folder: str(holds(folder)), holds)


def quantizer_of(kind: str) -> str:
    """Return the kind of tokens that a kind of prior takes."""
    return "pyramid" if kind == "pyramid" else "bsq"


def prepare_common(folder: Path) -> None:
    """Make frames of two classes, a tokenizer and tokens of each kind, and a model that is told classes."""
    pictures = load_frames("bundled:train")[: 2 * OF_A_CLASS]
    for number, picture in enumerate(pictures):
        path = folder / "frames" / CLASSES[number // OF_A_CLASS] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).resize(SIZE[::-1]).save(path)
    frames = str(folder / "frames")
    for kind in ("bsq", "pyramid"):
        tokenizer, tokens = str(folder / f"tokenizer-{kind}"), str(folder / f"tokens-{kind}.safetensors")
        named = ("--quantizer", kind) if kind != "bsq" else ()
        command("train", "tokenizer", "--frames", frames, "--out", tokenizer, *TINY, "--width", "8", *named)
        command("tokenize", "--tokenizer", tokenizer, "--frames", frames, "-o", tokens)
    tokens = str(folder / "tokens-bsq.safetensors")
    told = ("--tokens", tokens, "--valid-tokens", tokens, "--out", str(folder / "model"), "--width", "8", "--classes")
    command("train", "prior", *TINY, *told)


def command(*arguments: str) -> None:
    """Run a command."""
    verbs(arguments, standalone_mode=False)


def digest(folder: Path) -> str:
    """Name the content of all files of a folder but hidden ones, such as what was half-made.

    What they say of where the folder is, which is elsewhere each time, is left out.
    """
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            content = path.read_bytes().replace(str(folder).encode(), b"")
            found.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def weights(folder: Path) -> str:
    """Name the models of a run, and its files but those of its lock, which one that is killed as it ends leaves."""
    here = (path.name for path in (folder / "out").iterdir() if not path.is_dir())
    names = sorted(name for name in here if name not in (LOCK_FILE, HOLDER_FILE))
    models = sorted((folder / "out").glob("*.safetensors"))
    return repr((names, [hashlib.sha256(path.read_bytes()).hexdigest() for path in models]))


def figures(folder: Path) -> str:
    """Name what was measured, but for how long it took, and where the model lies."""
    found = json.loads((folder / "out.json").read_text())
    return repr({key: value for key, value in found.items() if "second" not in key and key != "model"})


def unreadable(folder: Path) -> list[str]:
    """Return the files of a folder that are half there; hidden ones are not anybody's."""
    bad = []
    for path in folder.rglob("*"):
        try:
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as opened:
                    [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118 (it is no dict)
            elif path.suffix == ".ckpt":
                torch.load(path, weights_only=True)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".png":
                Image.open(path).load()
        except Exception as error:
            bad.append(f"{path.relative_to(folder)}: {error}")
    return bad


class Ended(Exception):
    """A process that ended with an error."""


class Told(Ended):
    """A process that said in one line why it could not go on."""


TOLD = 2
"""Its exit status."""


@dataclass(frozen=True)
class Child:
    """A process that does some work."""

    pid: int
    log: Path
    """Where it says why it ended."""


def begin(work: Callable[[Path], object], folder: Path, trouble: Callable[[], object] = lambda: None) -> Child:
    """Begin work in a process of its own. trouble: called in that process first."""
    descriptor, name = tempfile.mkstemp(prefix=".log-", dir=folder)
    os.close(descriptor)
    log = Path(name)
    child = os.fork()
    if child:
        return Child(child, log)
    os.setsid()
    code = 1
    try:
        output = os.open(os.devnull, os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # whoever had put others in their place
        said = log.open("w")
        trouble()
        work(folder)
        code = 0
    except (BisquitError, OSError, click.ClickException) as error:  # as `bisquit.cli.main` has it
        end_trouble()
        code = TOLD if len(str(error).splitlines()) == 1 else 1
        said.write(f"{type(error).__name__}: {error}")
    except BaseException:
        end_trouble()
        traceback.print_exc(file=said)
    finally:
        said.flush()
        os._exit(code)


def end(child: Child, kill_after_s: float | None = None) -> bool:
    """Wait for a process's end; kill it after so many seconds, and return whether that was before its end.

    Raises Told if it ended with an error that the command line would tell in one line, Ended if with another, by a
    signal of its own, or not within LONGEST_S.
    """
    killer = threading.Timer(LONGEST_S if kill_after_s is None else kill_after_s, kill, [child.pid])
    killer.start()
    os.waitid(
        os.P_PID, child.pid, os.WEXITED | os.WNOWAIT
    )  # its number stays its own until nobody can kill it any more
    killer.cancel()
    killer.join()
    _, status = os.waitpid(child.pid, 0)
    if os.WIFSIGNALED(status):
        if kill_after_s is None or os.WTERMSIG(status) != signal.SIGKILL:
            raise Ended(f"ended by {signal.Signals(os.WTERMSIG(status)).name}, after {LONGEST_S} s at the latest")
        return True
    if os.WEXITSTATUS(status):
        raise (Told if os.WEXITSTATUS(status) == TOLD else Ended)(
            (child.log.read_text(errors="replace").strip().splitlines() or ["no word"])[-1]
        )
    return False


def kill(child: int) -> None:
    """Kill a process and whatever it started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not begun yet, or has ended just now
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def run(
    work: Callable[[Path], object],
    folder: Path,
    kill_after_s: float | None = None,
    trouble: Callable[[], object] = lambda: None,
) -> bool:
    """Do work in a process of its own, with `begin` and `end`."""
    return end(begin(work, folder, trouble), kill_after_s)


def import_what_runs(case: Case, folder: Path) -> None:
    """Import here what a command imports, so that what is forked later has it. folder: a new one, for it to run in."""

    def name_modules(folder: Path) -> None:
        case.start(folder)
        (folder / ".modules").write_text("\n".join(sys.modules))

    folder.mkdir()
    run(case.prepare, folder)
    run(name_modules, folder)
    for name in (folder / ".modules").read_text().splitlines():
        with contextlib.suppress(Exception):  # some put names among the modules that nobody can import
            importlib.import_module(name)


def tried(case: Case, kills: int, each: int = 10, seed: int = 0, troubles: Sequence[Trouble] = TROUBLES) -> Found:
    """Kill a command so many times, and give it each trouble so many times."""
    moments = random.Random(f"{case.name} {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        import_what_runs(case, Path(scratch) / "first")
        calm = Path(scratch) / "calm"
        calm.mkdir()
        run(case.prepare, calm)
        since = time.monotonic()
        run(case.start, calm)
        found = Found(time.monotonic() - since)
        wanted = case.made(calm)
        for number in range(kills):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            run(case.prepare, folder)
            try:
                found.kills += run(case.start, folder, moments.uniform(0, found.seconds))
                go_on(case, folder, wanted, "when nothing stops it")
                found.went_on += 1
            except Exception as error:
                found.lost.append(f"kill {number + 1}: {error}")
                print(f"  {found.lost[-1]}", flush=True)
            shutil.rmtree(folder)
        for trouble in troubles:
            found.told[trouble.name] = 0
            for number in range(each):
                folder = Path(scratch) / str(number)
                folder.mkdir()
                run(case.prepare, folder)
                try:
                    found.told[trouble.name] += is_told(case, folder, trouble, moments, wanted)
                except Exception as error:
                    found.lost.append(f"{trouble.name} {number + 1}: {error}")
                    print(f"  {found.lost[-1]}", flush=True)
                shutil.rmtree(folder)
    return found


def is_told(case: Case, folder: Path, trouble: Trouble, moments: random.Random, wanted: str) -> bool:
    """Run a command in trouble and once more without; return whether the trouble stopped it, and it said so.

    Raises Ended if it did anything else than to go to its end, or to stop with one line and all whole.
    """
    told, drawn = False, random.Random(moments.random())
    try:
        trouble.start(case, folder, drawn)
    except Told:
        told = True
    go_on(case, folder, wanted, "without trouble")
    return told


def must_hold(case: Case, folder: Path) -> None:
    """Raise FrameError unless all that must not be lost is there. In a process of its own: it may start threads."""
    if not case.holds(folder):
        raise FrameError("what was there before is not there any more")


def go_on(case: Case, folder: Path, wanted: str, usually: str) -> None:
    """Run a command once more to its end. Raises Ended if anything was lost before, or if that makes something else.

    usually: how `wanted` was made, for the message.
    """
    if bad := unreadable(folder):
        raise Ended(f"half there: {bad[0]}")
    run(lambda folder: must_hold(case, folder), folder)
    run(case.go_on, folder)
    if (made := case.made(folder)) != wanted:
        pairs = enumerate(zip(made, wanted, strict=False))
        alike = next((i for i, (own, others) in pairs if own != others), min(len(made), len(wanted)))
        shown = slice(max(0, alike - 40), alike + 60)
        raise Ended(f"what it made is not what it makes {usually}: ... {made[shown]} ..., not ... {wanted[shown]} ...")


def page(record: dict[str, Found], kills: int, troubles: int) -> str:
    """Return the page as Markdown."""
    names = [trouble.name for trouble in TROUBLES]
    rows = "\n".join(
        f"| {name} | {found.seconds:.1f} | {found.kills} | {found.went_on} | "
        + " | ".join(str(found.told.get(trouble, 0)) for trouble in names)
        + f" | {len(found.lost) or 'nothing'} |"
        for name, found in record.items()
    )
    rule = " | ".join("---" for _ in names)
    return f"""# What is lost when a command is killed

Every command that takes long, on a tiny set, killed (SIGKILL) at {kills} random moments and started again. Just after a
kill, no file is half there, and what was there before still is; at the end, what it made is, byte for byte, what it
makes when nothing stops it. "Killed" leaves out the times when it had ended before. Then {troubles} times each without
a kill: files cannot grow beyond a size drawn at random (a full disk), the folder cannot be written to, the clock jumps,
what it reads vanishes at a random moment, or the same command is started once more beside it; how often that stopped a
command, which then says so in one line and leaves nothing half there. Made on {date.today():%d %B %Y}, by

    make faults

| command | seconds | killed | went on | {" | ".join(names)} | lost |
| --- | --- | --- | --- | {rule} | --- |
{rows}

## What was found, and is mended

- A run that was killed before its record was whole could neither be resumed nor begun again.
- A temporary file of the safetensors library, left in a run's folder by a kill over weights, about once in 400 kills.
- A record of an archive that a full disk cut short stayed there, until the next picture was appended.

Each has a test of its own.
"""


def main() -> None:
    """Try every command that is not on record yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, help="how often each command is killed")
    parser.add_argument("--troubles", type=int, default=10, help="how often each is given each other trouble")
    parser.add_argument("--only", nargs="+", help="names of commands, in place of all; no page is then written")
    parser.add_argument("--record", type=Path, default=ROOT / "docs" / "faults.json", help="where figures are kept")
    options = parser.parse_args()
    kept = json.loads(options.record.read_text()) if options.record.exists() else {}
    record: dict[str, Found] = {}
    for module, _ in VERBS.values():
        importlib.import_module(module)  # so that what is forked has it
    with tempfile.TemporaryDirectory() as scratch:
        common = Path(scratch)
        run(prepare_common, common)
        for case in cases(common):
            if options.only and case.name not in options.only:
                continue
            print(case.name, flush=True)
            troubles = ", ".join(trouble.name for trouble in TROUBLES)
            key = f"{case.name}, {options.times} times; {troubles}, {options.troubles} times"
            known = Found(**kept[key]) if key in kept else None
            record[case.name] = known or tried(case, options.times, options.troubles)
            kept[key] = asdict(record[case.name])
            with atomic_file(options.record) as partial:
                partial.write_text(json.dumps(kept, indent=1) + "\n")
    if not options.only:
        with atomic_file(ROOT / "docs" / "faults.md") as partial:
            partial.write_text(page(record, options.times, options.troubles))
    lost = sum(len(found.lost) for found in record.values())
    print(json.dumps({"commands": {name: asdict(found) for name, found in record.items()}, "lost": lost}), flush=True)
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
