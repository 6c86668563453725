"""From what a person wrote in the settings to the code that Whisper's tokens carry."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from daemon.asr.errors import ModelError


def resolve_language(asked: str, known: Collection[str]) -> str:
    """The code of a language given by code, English name or token (``mg``, ``Malagasy``, ``<|mg|>``).

    `known` are the codes that the model's tokenizer has. Raises `ModelError` naming the nearest ones.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    wanted = asked.strip().lower().removeprefix("<|").removesuffix("|>")
    code = TO_LANGUAGE_CODE.get(wanted, wanted)
    if code in known:
        return str(code)
    if code in LANGUAGES:
        raise ModelError(
            f"This model's tokenizer has no language {code} ({LANGUAGES[code]}): "
            "choose another language or a newer model."
        )
    names = {name: its for name, its in TO_LANGUAGE_CODE.items() if its in known} | {its: its for its in known}
    near = dict.fromkeys(names[match] for match in get_close_matches(wanted, names, n=3, cutoff=0.5))
    hint = " or ".join(f"{its} ({LANGUAGES[its]})" if its in LANGUAGES else its for its in near)
    advice = f"did you mean {hint}?" if hint else "give a code such as mg or en, or an English name such as malagasy."
    raise ModelError(f'Whisper knows no language "{asked}": {advice}')
