"""Which clips go to the device together."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[float], *, max_clips: int, max_padded: float) -> list[list[int]]:
    """Group indices of `lengths` (seconds) into batches of similar length.

    A batch costs its longest member times its size, because shorter ones are padded; that product stays within
    `max_padded` seconds unless one clip alone exceeds it. Batches come in the order of their earliest member, so
    that what a person sees first is drafted first; only such a long clip waits until the others are done.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if current and (len(current) == max_clips or lengths[index] * (len(current) + 1) > max_padded):
            batches.append(current)
            current = []
        current.append(index)
    if current:
        batches.append(current)
    return sorted((sorted(batch) for batch in batches), key=lambda batch: (lengths[batch[0]] > max_padded, batch[0]))
