"""How the hub's library is asked: it speaks `requests` before its 1.0, which transformers 4 wants, and httpx since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def limit_waiting(connect_s: float, answer_s: float) -> None:
    """The library itself would wait for ever. `answer_s` is the time without a byte, not of a whole upload."""
    from huggingface_hub import get_session

    session: Any = get_session()
    if hasattr(session, "timeout"):
        session.timeout = type(session.timeout)(answer_s, connect=connect_s)
    else:
        _limit_requests(connect_s, answer_s)


def check_write(api: HfApi, repo: str, token: str) -> None:
    """Ask whether `token` may write to a repository. Raises the library's `HfHubHTTPError`."""
    from huggingface_hub.utils._http import hf_raise_for_status

    hf_raise_for_status(_get(api, f"api/models/{repo}/auth-check/write", token))


def read_card(api: HfApi, repo: str, token: str) -> str:
    """The README of a repository that has one. Raises the library's `HfHubHTTPError`."""
    from huggingface_hub.utils._http import hf_raise_for_status

    answer = _get(api, f"{repo}/raw/main/README.md", token)
    hf_raise_for_status(answer)
    return str(answer.text)


def _get(api: HfApi, path: str, token: str) -> Any:
    from huggingface_hub import get_session
    from huggingface_hub.utils._headers import build_hf_headers

    return get_session().get(f"{api.endpoint}/{path}", headers=build_hf_headers(token=token))


def _limit_requests(connect_s: float, answer_s: float) -> None:
    """Every thread has a session of its own there, made when it is wanted."""
    import huggingface_hub
    import requests
    from huggingface_hub.errors import OfflineModeIsEnabled

    class Limited(requests.adapters.HTTPAdapter):  # type: ignore[misc]  # the package has no types
        def send(self, request: Any, *_: Any, timeout: Any = None, **options: Any) -> Any:
            if huggingface_hub.constants.HF_HUB_OFFLINE:
                raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
            return super().send(request, timeout=timeout or (connect_s, answer_s), **options)

    def session() -> Any:
        made = requests.Session()
        for scheme in ("http://", "https://"):
            made.mount(scheme, Limited())
        return made

    huggingface_hub.configure_http_backend(backend_factory=session)
