"""A model onto the Hugging Face Hub, through `huggingface_hub`: one question before the training, one commit after.

`HF_ENDPOINT` names another hub. The functions block; nothing here writes to the model's folder, and no error repeats
the token. A repository that is made here is private; one that exists stays as visible as its owner made it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from daemon.errors import ConfigurationError
from daemon.hub_card import MARK, model_card
from daemon.hub_client import check_write, limit_waiting, read_card
from daemon.hub_errors import explained, misnamed

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["check", "check_token", "model_card", "push"]

log = structlog.get_logger(__name__)

CONNECT_S, ANSWER_S = 10.0, 120.0
"""How long the hub may take to let us in, and to send the next byte."""

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_KINDS = (".safetensors", ".json", ".txt")
_WEIGHTS = re.compile(r"model.*\.safetensors(\.index\.json)?")


def check(repo: str, token: str | None) -> str:
    """See that a push to `repo` would be let in, and make it (private) where it is not there yet. Returns its id.

    `token`: None takes HF_TOKEN, then what `hf auth login` stored. Raises `ConfigurationError` for what a person has
    to set right, `TemporaryError` when the hub does not answer.
    """
    check_token(repo, token)
    secret = _token(token)
    with explained(repo, secret):
        api = _api(repo, secret)
        api.create_repo(repo, private=True, exist_ok=True)
        check_write(api, repo, secret)
        found = api.model_info(repo)
    if found.private is False:
        log.warning("the repository is public: everybody can download what is pushed there", repo=found.id)
    return found.id


def check_token(repo: str, token: str | None) -> str:
    """See that there is a token that may write, and make nothing. Returns whose it is. Raises as `check` does."""
    secret = _token(token)
    with explained(repo, secret):
        api = _api(repo, secret)
        who = api.whoami()
        if _role(who) == "read":
            raise ConfigurationError(
                f"The token of {who.get('name', 'the hub')} may only read: make one that may write "
                f"at {api.endpoint}/settings/tokens and set HF_TOKEN to it."
            )
    return str(who.get("name", "the hub"))


def push(
    folder: Path,
    repo: str,
    token: str | None,
    *,
    card: str | None = None,
    private: bool = True,
    message: str = "A newly trained model",
) -> str:
    """Put the model of `folder` into `repo` as one commit. Returns the commit's URL. Doing it again is harmless.

    Only weights (safetensors), JSON, text and README.md that lie directly in the folder go. `card` is the README,
    unless a person's own is there. `private` is for a repository that has to be made. Raises as `check` does.
    """
    files = _files(folder)
    secret = _token(token)
    with explained(repo, secret):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api = _api(repo, secret)
        api.create_repo(repo, private=private, exist_ok=True)
        there = {each.rfilename for each in api.model_info(repo).siblings or ()}
        content: dict[str, str | bytes] = {file.name: str(file) for file in files}
        if card is not None:
            content["README.md"] = card.encode()
        if "README.md" in there and MARK not in read_card(api, repo, secret):
            content.pop("README.md", None)  # a person's own is left alone
        # Weights in other pieces than these would be loaded in place of these.
        stale = [name for name in there if _WEIGHTS.fullmatch(name) and name not in content]
        operations = [CommitOperationAdd(name, what) for name, what in content.items()]
        removals = [CommitOperationDelete(name) for name in stale]
        return str(api.create_commit(repo, [*operations, *removals], commit_message=message).commit_url)


def _files(folder: Path) -> list[Path]:
    try:
        plain = sorted(each for each in folder.iterdir() if each.is_file() and not each.is_symlink())
    except OSError as error:
        raise ConfigurationError(f"The model folder {folder} cannot be read: {error.strerror}.") from None
    files = [each for each in plain if each.suffix in _KINDS or each.name == "README.md"]
    if not any(_WEIGHTS.fullmatch(each.name) for each in files):
        raise ConfigurationError(f"There is no model in {folder}: it has no weights (model.safetensors).")
    return files


def _token(given: str | None) -> str:
    from huggingface_hub import get_token

    token = (given or "").strip() or get_token()
    if not token:
        raise ConfigurationError(
            "There is no token for the hub: set HF_TOKEN to one that may write, or store it with `hf auth login`."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("The hub's token holds spaces or other foreign characters; copy it again.")
    return token


def _api(repo: str, token: str) -> HfApi:
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not _REPO.fullmatch(repo):
        raise misnamed(repo)
    limit_waiting(CONNECT_S, ANSWER_S)
    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(token=token)


def _role(who: dict[str, object]) -> str | None:
    """What kind of token it is: ``read``, ``write`` or ``fineGrained``; None where the hub does not say."""
    auth = who.get("auth")
    access = auth.get("accessToken") if isinstance(auth, dict) else None
    return access.get("role") if isinstance(access, dict) else None
