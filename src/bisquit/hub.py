"""Models on the Hugging Face Hub: folders there hold what folders here do, so whole folders go up and come down.

    owner/name[@revision] ──download──> a folder in the Hub's cache ──> `bisquit.load`
    a folder that a model was saved to ──upload──> owner/name[@revision]

Nothing here is called unless such a name is given. What was downloaded once is read again without a network. Names,
the cache and who one is are huggingface_hub's, and so are its environment variables: HF_HOME, HF_ENDPOINT, HF_TOKEN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self

from bisquit.checkpoint import CARD_FILE, PRIOR_FILE, TOKENIZER_FILE
from bisquit.errors import ModelError

HUB_SCHEME = "hf://"
"""Before a name where a folder could be meant too."""

_FILES = (TOKENIZER_FILE, PRIOR_FILE, CARD_FILE)
_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_ID = re.compile(rf"({_PART}/{_PART})(?:@(\w[\w./-]*))?", re.ASCII)


class HubId(NamedTuple):
    """Which model on the Hub is meant."""

    repository: str
    """owner/name."""
    revision: str | None = None
    """A branch, tag or commit; None for the newest."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what `owner/name[@revision]` means, with the scheme before it or not; None for other texts."""
        match = _ID.fullmatch(text.removeprefix(HUB_SCHEME))
        return cls(*match.groups()) if match else None

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


def download(hub_id: HubId) -> Path:
    """Return the folder of a model, downloaded into the Hub's cache, or as it lies there if there is no network.

    Raises ModelError if huggingface_hub is not installed, if the Hub cannot be reached or has no such model, or if
    what it has is no model of bisquit's.
    """
    library = _library()
    with _one_line(f"{hub_id} cannot be had from the Hugging Face Hub"):
        folder = Path(
            library.snapshot_download(hub_id.repository, revision=hub_id.revision, allow_patterns=list(_FILES))
        )
    if not (folder / TOKENIZER_FILE).is_file():
        raise ModelError(f"{hub_id} on the Hugging Face Hub has no {TOKENIZER_FILE}: it is no model of bisquit's")
    return folder


def upload(folder: Path, hub_id: HubId, *, private: bool = False, message: str | None = None) -> str:
    """Upload the model in a folder as one commit, and return its address; the repository is made if there is none.

    private: whether one that is made is. message: the commit's. Raises ModelError if huggingface_hub is not installed,
    or if the Hub cannot be reached or does not take it.
    """
    library = _library()
    with _one_line(f"{hub_id} cannot be written to the Hugging Face Hub"):
        api = library.HfApi()
        address = api.create_repo(hub_id.repository, private=private, exist_ok=True)
        if hub_id.revision is not None:
            api.create_branch(hub_id.repository, branch=hub_id.revision, exist_ok=True)
        api.upload_folder(
            repo_id=hub_id.repository,
            folder_path=folder,
            allow_patterns=list(_FILES),
            commit_message=message or "Upload with bisquit",
            revision=hub_id.revision,
        )
    return str(address)


def _library() -> ModuleType:
    """Return huggingface_hub. Raises ModelError if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError("models of the Hugging Face Hub need its client: pip install 'bisquit[hub]'") from error
    return huggingface_hub


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn what huggingface_hub raises, HTTP errors among it, into one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = _REASONS.get(status, f"it answered {status}") if status else "it did not answer"
        raise ModelError(f"{what}: {reason}") from error
    except HFValidationError as error:
        raise ModelError(f"{what}: {_first_line(error)}") from error
    except OSError as error:  # of the network, for it has no error that is none of these
        raise ModelError(f"{what}: it cannot be reached, and no copy is in the cache ({_first_line(error)})") from error


_REASONS = {
    401: "there is no such model, or it is private: log in with `hf auth login`",
    403: "you may not: log in with `hf auth login` as one who may",
    404: "there is no such model or revision",
}


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
