"""Values in the notation of the real server's language, because its error messages quote them so."""

from __future__ import annotations

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def inspect(value: object) -> str:
    """JSON-like data as Elixir prints it: `%{"filter" => nil}`, `["contains", "x"]`."""
    match value:
        case None:
            text = "nil"
        case bool():
            text = "true" if value else "false"
        case dict():
            text = "%{" + ", ".join(f"{inspect(key)} => {inspect(value[key])}" for key in sorted(value)) + "}"
        case list():
            text = "[" + ", ".join(inspect(item) for item in value) + "]"
        case tuple():
            text = "{" + ", ".join(inspect(item) for item in value) + "}"
        case str():
            text = '"' + value.translate(_ESCAPES).replace("#{", "\\#{") + '"'
        case _:
            text = str(value)
    return text
