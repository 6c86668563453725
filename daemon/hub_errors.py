"""What the hub and its library say when something fails, as one sentence that repeats no token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daemon.errors import AmbaraError, ConfigurationError, TemporaryError
from daemon.redaction import Redactor


@contextmanager
def explained(repo: str, token: str) -> Iterator[None]:
    """Turn a failure of the library, of its HTTP client or of its uploader into a sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except AmbaraError:
        raise
    except OfflineModeIsEnabled:
        raise ConfigurationError("HF_HUB_OFFLINE keeps this process off the hub: unset it to push.") from None
    except HfHubHTTPError as error:
        raise _refusal(error, repo, token) from None
    except HFValidationError:
        raise misnamed(repo) from None
    except ValueError as error:
        said = _short(str(error), token)
        raise ConfigurationError(f"What answers is no Hugging Face Hub, or it refuses the files: {said}.") from None
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise ConfigurationError(f"The file {error.filename} cannot be read: {error.strerror}.") from None
        if hasattr(getattr(error, "response", None), "status_code"):  # some are raised again as something plainer
            raise _refusal(error, repo, token) from None
        package = type(error).__module__.partition(".")[0]
        # The uploaders say RuntimeError for a transfer that did not come through.
        if isinstance(error, OSError | RuntimeError) or package in {"httpx", "httpx2", "urllib3", "hf_xet"}:
            raise TemporaryError(
                f"The hub does not answer, or the connection broke ({type(error).__name__}): the model is still "
                "here, and trying again is safe.",
                reason="hub-away",
            ) from None
        raise


def misnamed(repo: str) -> ConfigurationError:
    """For a name that cannot be a repository's."""
    return ConfigurationError(f"{repo!r} is not the name of a repository on the hub; it looks like user/name.")


def _refusal(error: Any, repo: str, token: str) -> AmbaraError:
    """What a status says to a person."""
    number = error.response.status_code
    said = _short(getattr(error, "server_message", None) or "", token)
    if number == 401:
        return ConfigurationError(
            "The hub refuses the token: make one that may write under Settings, Access Tokens, and set HF_TOKEN to it."
        )
    if number in {403, 404}:
        return ConfigurationError(
            f"The token may not write to {repo}: name a repository of your own account or organisation, or use a "
            "token that may write to this one."
        )
    if number in {408, 409, 412, 425, 429} or number >= 500:
        return TemporaryError(f"The hub cannot take {repo} now (HTTP {number}); try again later.", reason="hub-away")
    return ConfigurationError(f"The hub refuses {repo} (HTTP {number}{': ' + said if said else ''}).")


def _short(text: str, token: str) -> str:
    """One line of it, without the token."""
    return Redactor([token])(" ".join(text.split()))[:200].rstrip(". ")
