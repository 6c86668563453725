"""Remedies for the installed service: its key, its settings and its environment stand in files of root's."""

from __future__ import annotations

import re

VARIABLE = "AMBARA_SERVICE"
"""Set by the installed command line."""

_TOML = "/etc/ambara/ambara.toml"
_KEY = "sudo install -m 600 /dev/stdin /etc/ambara/supabase_service_role_key   # paste the key, Enter, Ctrl-D"
_DB_URL = "read -rs SUPABASE_DB_URL; export SUPABASE_DB_URL; sudo --preserve-env=SUPABASE_DB_URL"
_REWRITTEN = (
    (r"^export SUPABASE_SERVICE_ROLE_KEY=.*", _KEY),
    (r"^export SUPABASE_URL=(\S+)", rf'url = "\1"   # under [supabase] in {_TOML}'),
    (r"^export SUPABASE_DB_URL=.*", f"{_DB_URL} ambara doctor   # paste postgresql://…, Enter"),
    (r"^export (\w+)=(\S+)(.*)", r"echo '\1=\2' | sudo tee -a /etc/ambara/environment\3"),
    (r"^SUPABASE_DB_URL=\S+ (ambara .*)", rf"{_DB_URL} \1   # paste postgresql://…, Enter"),
    (r"^(ambara |\S*python\S* -m pip )", r"sudo \1"),
    (r"^\$\{EDITOR:-vi\} \S+", f"sudoedit {_TOML}"),
    (r" in ambara\.toml", f" in {_TOML}"),
)


def as_installed(remedy: str) -> str:
    """A remedy, line by line, as it has to be typed on a machine where Ambara is a service."""
    lines = []
    for line in remedy.splitlines():
        for pattern, instead in _REWRITTEN:
            line, times = re.subn(pattern, instead, line)  # noqa: PLW2901
            if times:
                break
        lines.append(line)
    return "\n".join(lines)
