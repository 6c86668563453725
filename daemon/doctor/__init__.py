"""Looks at everything that `ambara run` needs, changes nothing, and says what mends each thing that is wrong."""

from __future__ import annotations

from daemon.doctor.finding import Finding
from daemon.doctor.rounds import examine

__all__ = ["Finding", "examine"]
