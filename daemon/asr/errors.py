"""What can be wrong with a model, said in one plain sentence."""

from __future__ import annotations


class ModelError(Exception):
    """The model cannot serve as asked; the message is one sentence for a person, with the remedy."""
