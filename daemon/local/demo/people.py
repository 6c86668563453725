"""Rows that hold a person's words, each of the kind that a careless daemon would overwrite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from daemon.local.demo.story import Clip, Row
from daemon.local.demo.tapes import Tape


async def add_people(insert: Callable[[str, Row], Awaitable[Row]], tapes: Sequence[Tape]) -> list[Clip]:
    """Insert them. None of them may ever be drafted, nor trained on: no audio belongs to them."""
    said = [utterance.text for utterance in tapes[0].clips]
    clips: list[Clip] = []

    async def add(writer: str, row: Row) -> None:
        made = await insert("clips", {"draft_transcription": "stock draft", **row})
        clips.append(Clip(made["id"], made["file_name"], writer, False, made))

    run = (await insert("runs", {"label": "at work"}))["id"]
    await add(
        "a person who is typing",
        {"run_id": run, "file_name": "clips/typing.wav", "corrected_transcription": said[0][:4]},
    )
    await add(
        "a person who discarded",
        {"run_id": run, "file_name": "clips/gone.wav", "status": "discarded", "corrected_by": "rasoa"},
    )
    text = f"{said[2]} {said[3]}"
    await add(
        "a chapter",
        {
            "run_id": run,
            "file_name": "chapters/1.wav",
            "draft_transcription": text,
            "paragraphs": [{"text": text}],
        },
    )
    await add(
        "a piece of a chapter",
        {"run_id": run, "file_name": "chunks/0000.wav", "draft_transcription": said[2]},
    )
    reading = (await insert("runs", {"label": "psalms", "type": "reading"}))["id"]
    await add(
        "a text to be read aloud",
        {"run_id": reading, "file_name": "chunks/0000.wav", "draft_transcription": said[4]},
    )
    return clips
