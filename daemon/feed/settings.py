"""What a feed is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_WORKER = re.compile(r"[\w.-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """Where to listen and how patiently. Times are seconds. Raises ValueError for a worker that cannot be asked for."""

    url: str
    """The project's URL, http or https."""
    key: str = field(repr=False)
    """With whose rights is listened."""
    worker: str
    """This daemon's row of `ambara_daemons`. It becomes part of a filter, where a comma would begin another one."""
    canary_s: float = 60.0
    """Pause between two beats."""
    canary_timeout_s: float = 30.0
    """A beat that is not back within this time is lost: a deaf feed is found after both together at the latest."""
    join_timeout_s: float = 15.0
    """For the handshake, and then for everything until the server says that changes flow."""
    backoff_max_s: float = 15.0
    """Between two tries, at most. A try may wait ten seconds for an answer that does not come; with the pause and the
    joining, the feed is live again within 35 s of whatever was wrong."""
    apikey: str | None = field(default=None, repr=False)
    """What the project's gateway wants to see, where that is not `key` itself."""

    def __post_init__(self) -> None:
        if not _WORKER.fullmatch(self.worker):
            raise ValueError(f"A worker's name consists of letters, digits, dots and hyphens, not {self.worker!r}.")
