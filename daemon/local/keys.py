"""The secrets of one stack, made once and kept in a file that only its owner may read."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import jwt

_TEN_YEARS_S = 10 * 365 * 24 * 3600
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Keys:
    """Signing secret, database password and the two API keys that Supabase hands out (HS256 JWTs, ten years)."""

    jwt_secret: str
    db_password: str
    anon_key: str
    service_role_key: str

    @classmethod
    def load_or_create(cls, path: Path) -> Keys:
        """Read `path`, or make new keys and write them there with mode 0600."""
        if path.exists():
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        keys = cls.generate()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(keys), file)
        return keys

    @classmethod
    def generate(cls) -> Keys:
        """New random keys."""
        secret = secrets.token_urlsafe(48)
        expiry = int(time.time()) + _TEN_YEARS_S
        return cls(
            jwt_secret=secret,
            db_password=secrets.token_hex(16),
            anon_key=mint(secret, "anon", exp=expiry),
            service_role_key=mint(secret, "service_role", exp=expiry),
        )


def mint(secret: str, role: str, **claims: object) -> str:
    """Sign a token for `role`, valid for an hour; `claims` add to or replace `iss`, `iat` and `exp` (Unix seconds)."""
    now = int(time.time())
    return jwt.encode({"iss": "supabase", "role": role, "iat": now, "exp": now + _HOUR_S, **claims}, secret)
