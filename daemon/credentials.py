"""Where the daemon knocks and with which key: both are judged before anything is sent.

The key is never written into an error: what is wrong with it is said in words.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daemon.errors import ConfigurationError

URL_VARIABLE = "SUPABASE_URL"
KEY_VARIABLE = "SUPABASE_SERVICE_ROLE_KEY"
FILE_VARIABLE = "SUPABASE_SERVICE_ROLE_KEY_FILE"
CREDENTIAL = "supabase_service_role_key"
"""Name of the credential in a systemd unit: ``LoadCredential=supabase_service_role_key:/path``."""
APIKEY_VARIABLE = "SUPABASE_ANON_KEY"
ROLE = "ambara_daemon"
"""The daemon's own role in the database: it calls the daemon's functions and may write to no table."""

_LOOKS = "It looks like https://abcdefgh.supabase.co"
_REMEDY = "use the service_role (secret) key of the project's API settings"
_PUBLIC = f"set {APIKEY_VARIABLE} to the anon (publishable) key of the project's API settings"
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
_BARE_NAME = re.compile(r"[a-z][a-z0-9-]*", re.IGNORECASE)


def check_url(url: str, source: str) -> str:
    """The project's address without a trailing slash. `source` says where it was found, for the errors."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(f"{source} is not an address. {_LOOKS}.") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{source} holds a user or a password; leave them out. {_LOOKS}.")
    if parts.scheme.startswith("postgres"):
        raise ConfigurationError(f"{source} is the database's address, not the project's. {_LOOKS}.")
    if parts.scheme not in {"http", "https"} or not _is_host(host) or port == 0:
        raise ConfigurationError(f"{source} is not an http(s) address. {_LOOKS}.")
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(f"{source} goes on after the host; only {origin} belongs there. {_LOOKS}.")
    if parts.scheme == "http" and not _stays_near(host):
        raise ConfigurationError(
            f"{source} is {origin}: over http the key would travel in clear through the network; use https."
        )
    return origin


def read_key(env: Mapping[str, str]) -> str:
    """The key from the environment, or from a file that the environment names. Not yet judged."""
    if key := env.get(KEY_VARIABLE, "").strip():
        return key
    directory = env.get("CREDENTIALS_DIRECTORY")
    if named := env.get(FILE_VARIABLE):
        return _read(Path(named))
    if directory and (file := Path(directory) / CREDENTIAL).exists():
        return _read(file)
    raise ConfigurationError(
        f"Set {KEY_VARIABLE} to the project's service_role (secret) key, or {FILE_VARIABLE} to a file that holds it."
    )


def check_key(key: str, url: str, *, now: datetime | None = None) -> None:
    """Raise `ConfigurationError` for a key that cannot work. The signature is the server's business."""
    if not key.isascii() or any(character.isspace() for character in key):
        raise ConfigurationError(f"{KEY_VARIABLE} holds spaces or other foreign characters; copy the key again.")
    if key.startswith("sb_secret_"):
        return
    if key.startswith("sb_publishable_"):
        raise ConfigurationError(f"{KEY_VARIABLE} is the publishable key, which may not write drafts; {_REMEDY}.")
    claims = _claims(key)
    if claims is None:
        raise ConfigurationError(f"{KEY_VARIABLE} is not a Supabase key (a JWT, or sb_secret_…); {_REMEDY}.")
    role = claims.get("role")
    if role in {"anon", "authenticated"}:
        named = "the anon key" if role == "anon" else "the token of a signed-in person"
        raise ConfigurationError(f"{KEY_VARIABLE} is {named}, which may not write drafts; {_REMEDY}.")
    if not isinstance(role, str):
        raise ConfigurationError(f"{KEY_VARIABLE} is a token without a role; {_REMEDY}.")
    if role not in {"service_role", ROLE}:
        raise ConfigurationError(f"{KEY_VARIABLE} is a token of a role that is not {ROLE}; {_REMEDY}.")
    project, host = claims.get("ref"), urlsplit(url).hostname or ""
    if isinstance(project, str) and host.endswith(".supabase.co") and host != f"{project}.supabase.co":
        raise ConfigurationError(f"{KEY_VARIABLE} belongs to another project than {host}; copy the key of that one.")
    expiry = claims.get("exp")
    if isinstance(expiry, int | float) and expiry <= (now or datetime.now(UTC)).timestamp():
        remedy = f"sign another token for {ROLE}" if role == ROLE else _REMEDY
        raise ConfigurationError(f"{KEY_VARIABLE} expired{_on(expiry)}; {remedy}.")


def read_apikey(env: Mapping[str, str], key: str) -> str:
    """What is shown to the project's gateway: `key`, or the project's public key where `key` is a token of the daemon's
    own role, which no gateway knows. Not yet judged."""
    own = (_claims(key) or {}).get("role") == ROLE
    return env.get(APIKEY_VARIABLE, "").strip() if own else key


def check_apikey(apikey: str) -> None:
    """Raise `ConfigurationError` for anything but a public key: beside a token of the daemon's own role."""
    if not apikey:
        raise ConfigurationError(
            f"{KEY_VARIABLE} is a token of {ROLE}, which the project's gateway does not know; {_PUBLIC} as well."
        )
    if not apikey.isascii() or any(character.isspace() for character in apikey):
        raise ConfigurationError(f"{APIKEY_VARIABLE} holds spaces or other foreign characters; copy the key again.")
    role = (_claims(apikey) or {}).get("role")
    if apikey.startswith("sb_secret_") or role == "service_role":
        raise ConfigurationError(f"{APIKEY_VARIABLE} is the secret key, which opens everything; {_PUBLIC}.")
    if not apikey.startswith("sb_publishable_") and role != "anon":
        raise ConfigurationError(f"{APIKEY_VARIABLE} is not a public key of a Supabase project; {_PUBLIC}.")


def _claims(key: str) -> dict[str, Any] | None:
    """What a JWT says, its signature unseen; None for what is no JWT."""
    try:
        _header, payload, _signature = key.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _on(seconds: float) -> str:
    try:
        return f" on {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):
        return ""


def _read(file: Path) -> str:
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The key file {file} cannot be read ({type(error).__name__}).") from None
    if not key:
        raise ConfigurationError(
            f"The key file {file} is empty; write the project's service_role (secret) key into it."
        )
    return key


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True


def _stays_near(host: str) -> bool:
    """Loopback, a private address, or a name that only a local network knows (a container's, for one)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _BARE_NAME.fullmatch(host) is not None or host.endswith((".localhost", ".local", ".internal"))
    return address.is_loopback or address.is_private or address.is_link_local
