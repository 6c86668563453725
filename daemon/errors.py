"""Two words for failure: the caller's next move is in the type.

The text of each error is one plain sentence for a person, with the remedy where there is one. It never holds a secret.
"""

from __future__ import annotations

from daemon.asr.errors import of_the_machine, out_of_memory

EXIT_CONFIGURATION = 78
"""sysexits.h EX_CONFIG: the service manager must not restart a daemon whose configuration is wrong."""


class AmbaraError(Exception):
    """A failure that is understood."""

    def __init__(self, message: str, *, reason: str = "error") -> None:
        super().__init__(message)
        self.reason = reason
        """A short slug that is stored and counted, such as ``audio-missing``."""


class TemporaryError(AmbaraError):
    """Log it and go on; the next sweep asks again."""


class PermanentError(AmbaraError):
    """Asking again gives the same answer: store the reason, show it, count it."""


class ConfigurationError(AmbaraError):
    """A person has to change something first: the process ends with `EXIT_CONFIGURATION`."""


def machine_trouble(error: BaseException) -> TemporaryError | None:
    """What a model's failure says of the machine, where that is to blame: ``out-of-memory`` or ``machine``."""
    if out_of_memory(error):
        return TemporaryError("This machine has no memory left for the model.", reason="out-of-memory")
    if of_the_machine(error):
        what = getattr(error, "strerror", None) or type(error).__name__
        return TemporaryError(f"This machine cannot open the model now ({what}).", reason="machine")
    return None


def first_error(group: BaseExceptionGroup[AmbaraError]) -> AmbaraError:
    """The first error of a group that a TaskGroup raised."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AmbaraError)
    return error
