"""What can be wrong with a model, said in one plain sentence."""

from __future__ import annotations


class ModelError(Exception):
    """The model cannot serve as asked; the message is one sentence for a person, with the remedy."""


class HubAwayError(ModelError):
    """The model hub does not answer, or there is no room for what it sends: later it may be otherwise."""


class DeviceAwayError(ModelError):
    """The device that was asked for is not there. A graphics card may come after the daemon, when a machine boots."""
