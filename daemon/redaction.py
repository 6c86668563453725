"""Takes secrets out of text, whatever shape they have there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

MASK = "***"

# No pattern may begin with a repetition, or with one without bounds behind what repeats itself: in a word of a megabyte
# each letter would be tried as its beginning.
_NAMES = r"(?:token|apikey|api_key|service_role_key|secret|password|authorization|signature|credential)"
_FIELD = re.compile(rf"[\w-]*{_NAMES}", re.IGNORECASE)
_ALWAYS = (
    # An address's query, whatever its fields are called: signatures have many names. What follows `/sign/` in the
    # address of a signed object, which may stand without its host. And the values that a query or a field hands over.
    (re.compile(r"(://(?:(?!://)[^\s\"'<>?])*\?)[^\s\"'<>]+"), rf"\1{MASK}"),
    (re.compile(r"(/object/(?:upload/)?sign/)[^\s\"'<>]+"), rf"\1{MASK}"),
    (re.compile(rf"({_NAMES}=)[^&\s\"',;)}}]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(rf"({_NAMES}[\"']\s*[:,]\s*b?[\"'])[^\"']+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    # Tokens by their shape: JWT, Supabase, Hugging Face; and the password inside an address.
    (re.compile(r"eyJ[\w-]{5,300}\.[\w-]+\.[\w-]*"), MASK),
    (re.compile(r"\bsb_secret_[\w-]+|\bhf_[A-Za-z0-9]{20,}"), MASK),
    (re.compile(r"(\w://[^\s/:@]*:)[^\s/@]+@"), rf"\1{MASK}@"),
)
_SHORTEST_CODED = 6
"""Characters. Shorter pieces of a coded secret stand in innocent words too."""
_SHORTEST_SIGNATURE = 20


class Redactor:
    """Replaces the given secrets, raw and coded, and whatever looks like a secret, by `MASK`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if secret for part in _parts(secret) for form in _forms(part)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    @staticmethod
    def hides(field: object) -> bool:
        """Whether a field of this name has a secret for its value."""
        return isinstance(field, str) and _FIELD.fullmatch(field) is not None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known:
            text = self._known.sub(MASK, text)
        for pattern, replacement in _ALWAYS:
            text = pattern.sub(replacement, text)
        return text


def _parts(secret: str) -> Iterator[str]:
    """The secret, and of a JWT the signature alone: the rest is known to everybody who knows the project."""
    yield secret
    signature = secret.rpartition(".")[2]
    if secret.count(".") == 2 and len(signature) >= _SHORTEST_SIGNATURE:
        yield signature


def _forms(secret: str) -> Iterator[str]:
    """The secret as it may stand in a line: raw, escaped, in an address, in base64 whatever stands before it."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield quote(secret, safe="")
    yield quote(secret)
    raw = secret.encode()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        # The first and the last character may also hold bits of the neighbours.
        whole = coded[(0, 2, 3)[before] : len(coded) - ((before + len(raw)) % 3 > 0)]
        if len(whole) >= _SHORTEST_CODED:
            yield whole
            yield whole.replace("+", "-").replace("/", "_")
