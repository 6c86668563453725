"""JWTs: what makes one acceptable, and the words for each refusal in the three places where one is presented."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.types import Options

_FIELDS = "Fields `role` and `exp` are required in JWT"
_MALFORMED = "The token provided is not a valid JWT"
_SIGNATURE = "Failed to validate JWT signature"
_OPTIONS: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


@dataclass(frozen=True, slots=True)
class Claims:
    """A token that was found valid."""

    role: str
    exp: float
    """Seconds since 1970, by the wall clock."""
    raw: dict[str, Any]

    def seconds_past_expiry(self) -> float:
        return time.time() - self.exp


class TokenError(Exception):
    """A token that is refused, with the text for each place that refuses it."""

    def __init__(self, *, handshake: str, join: str, push: str) -> None:
        super().__init__(handshake)
        self.handshake = handshake
        """The `error` of the HTTP body when a socket is opened."""
        self.join = join
        """The `reason` of a failed `phx_join`."""
        self.push = push
        """The `message` of the `system` error after an `access_token` push."""


def expired_message(seconds: float) -> str:
    return f"Token has expired {max(0, int(seconds))} seconds ago"


def check(token: object, secret: str) -> Claims:
    """The claims of an HS256 token. Raises `TokenError` where it is malformed, forged, incomplete or expired."""
    if not isinstance(token, str):
        raise TokenError(handshake=_MALFORMED, join=f"MalformedJWT: {_MALFORMED}", push=_MALFORMED)
    try:
        raw: dict[str, Any] = jwt.decode(token, secret, algorithms=["HS256"], options=_OPTIONS)
    except jwt.InvalidSignatureError:
        raise TokenError(
            handshake=_SIGNATURE, join=f"JwtSignatureError: {_SIGNATURE}", push=":signature_error"
        ) from None
    except jwt.PyJWTError:
        raise TokenError(handshake=_MALFORMED, join=f"MalformedJWT: {_MALFORMED}", push=_MALFORMED) from None
    role, exp = raw.get("role"), raw.get("exp")
    if not isinstance(role, str) or not isinstance(exp, int | float):
        raise TokenError(handshake=_FIELDS, join=f"InvalidJWTToken: {_FIELDS}", push=_FIELDS)
    claims = Claims(role=role, exp=float(exp), raw=raw)
    if claims.seconds_past_expiry() >= 0:
        message = expired_message(claims.seconds_past_expiry())
        raise TokenError(handshake="Token has expired", join=f"InvalidJWTToken: {message}", push=message)
    return claims
