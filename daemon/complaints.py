"""What is wrong with a configuration file, in one sentence that names the file, the key and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from daemon.credentials import FILE_VARIABLE, KEY_VARIABLE
from daemon.errors import ConfigurationError

Sections = Mapping[str, Sequence[str]]
"""The known keys of each known section."""

_SECRET_NAME = re.compile(r"key|secret|token|password", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(eyJ[\w-]+\.[\w-]+\.[\w-]+|sb_secret_\w+|hf_\w{20,})")


def check_names(table: Mapping[str, Any], sections: Sections, file: str) -> None:
    """Raise `ConfigurationError` for an unknown section or key, and for a secret: its value is not repeated."""
    for section, content in table.items():
        if section not in sections:
            if isinstance(content, Mapping):
                raise ConfigurationError(f"{file} has an unknown section [{section}]{_nearest(section, sections)}")
            _refuse_secret(section, content, f"{section} in {file}")
            raise ConfigurationError(f"{file} has an unknown key {section}{_nearest_key(section, '', sections)}")
        if not isinstance(content, Mapping):
            raise ConfigurationError(f"{file}: {section} is a section; write [{section}] and its keys under it.")
        for key, value in content.items():
            known = key in sections[section]
            _refuse_secret("" if known else key, value, f"{section}.{key} in {file}")
            if not known:
                nearest = _nearest_key(key, section, sections)
                raise ConfigurationError(f"{file} has an unknown key {section}.{key}{nearest}")


def sentence(error: ValidationError, table: Mapping[str, Any], file: str) -> str:
    """The first complaint: file, key, what was found, what is wanted."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{file}: {place}: {first['ctx']['error']}."
    wanted = first["msg"].replace("Input should", "it should", 1)
    if first["type"] == "path_type":
        wanted = "it should be the path of a directory"
    found: Any = table
    for part in first["loc"]:
        found = found.get(part) if isinstance(found, Mapping) else None
    shown = repr(found)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return f"{file}: {place} is {shown}; {wanted}."


def _refuse_secret(name: str, value: object, where: str) -> None:
    if _SECRET_NAME.search(name) or (isinstance(value, str) and _SECRET_VALUE.search(value)):
        raise ConfigurationError(
            f"{where} holds a secret, which does not belong into this file: "
            f"take it out and set {KEY_VARIABLE} in the environment, or name its file in {FILE_VARIABLE}."
        )


def _nearest(name: str, sections: Sections) -> str:
    near = difflib.get_close_matches(name, sections, n=1)
    return f"; did you mean [{near[0]}]?" if near else f"; there are {', '.join(f'[{s}]' for s in sections)}."


def _nearest_key(key: str, section: str, sections: Sections) -> str:
    own = sections.get(section, ())
    owners = {name: owner for owner, names in sections.items() for name in names}
    near = difflib.get_close_matches(key, own, n=1) or difflib.get_close_matches(key, owners, n=1)
    if not near:
        return f"; there are {', '.join(own)}." if own else "; keys stand under sections such as [model]."
    return f"; did you mean {section if near[0] in own else owners[near[0]]}.{near[0]}?"
