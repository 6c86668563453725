"""The format of a data set on disk, as Hugging Face calls it an audiofolder, with a manifest that makes it whole.

    train/metadata.csv    file_name,transcription
    train/clips/<clip id>.wav    16 kHz, mono, 16 bits
    test/…    the held-out recordings
    manifest.json    where each clip is from, and what was left out and why; written last

A folder without a whole manifest is not frozen: something ended the work midway.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from daemon.asr.transcriber import SAMPLE_RATE
from daemon.learning.durable import sync, write_whole
from daemon.learning.pcm import HEADER_BYTES, Pcm, fingerprint
from daemon.learning.ports import Sample, Side

MANIFEST = "manifest.json"
FORMAT = 1
FOLDERS: Mapping[Side, str] = {Side.TRAIN: "train", Side.HELD_OUT: "test"}
_COLUMNS = ("file_name", "transcription")


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip of a data set."""

    clip_id: str
    run_id: str
    label: str
    """Of its run."""
    recording: str
    kind: str
    """Of its run: ``extraction`` or ``reading``."""
    side: Side
    text: str
    """As a person wrote it, without outer white space."""
    text_md5: str
    """As the run counted it."""
    audio_sha256: str
    """Over the samples, 16 bits little-endian."""
    seconds: float

    @property
    def file(self) -> str:
        """Where its audio is, in the data set's folder."""
        return clip_file(self.side, self.clip_id)


@dataclass(frozen=True, slots=True)
class Amount:
    """How much there is on one side."""

    clips: int
    seconds: float
    recordings: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """A whole data set on disk."""

    folder: Path
    train: Amount
    held_out: Amount
    left_out: Mapping[str, int]
    """Reason -> clips."""
    refused: Mapping[str, str]
    """Clip id -> reason, of the clips that freezing itself left out."""
    notes: Mapping[str, int]
    """What is in the set and worth a word -> clips."""
    audio: Mapping[str, str] = field(repr=False)
    """Clip id -> sha256 of its samples, of every clip in the set."""


def clip_file(side: Side, clip_id: str) -> str:
    """Path of a clip's audio under the data set's folder. Base names of two runs would collide; ids do not."""
    return f"{FOLDERS[side]}/clips/{clip_id}.wav"


def entry(sample: Sample, text: str, pcm: Pcm) -> Entry:
    """What the manifest says of a clip."""
    return Entry(
        clip_id=sample.clip_id,
        run_id=sample.run_id,
        label=sample.label,
        recording=sample.recording,
        kind=sample.kind,
        side=sample.side,
        text=text,
        text_md5=sample.text_md5,
        audio_sha256=fingerprint(pcm),
        seconds=len(pcm) / SAMPLE_RATE,
    )


def prepare(folder: Path) -> None:
    """Make room for the clips of both sides."""
    for name in FOLDERS.values():
        (folder / name / "clips").mkdir(parents=True, exist_ok=True)


def write_set(
    folder: Path,
    entries: Sequence[Entry],
    *,
    left_out: Mapping[str, int],
    refused: Mapping[str, str],
    notes: Mapping[str, int],
) -> Frozen:
    """Make a prepared `folder` with the entries' audio whole: other audio goes, the manifest comes last."""
    files = {entry.file for entry in entries}
    for side, name in FOLDERS.items():
        clips = folder / name / "clips"
        for path in clips.iterdir():
            if f"{name}/clips/{path.name}" not in files:
                path.unlink()
        write_whole(folder / name / "metadata.csv", _metadata(entry for entry in entries if entry.side is side))
        sync(clips, clips.parent)
    manifest = {
        "format": FORMAT,
        "metadata_sha256": {name: _digest(folder / name / "metadata.csv") for name in FOLDERS.values()},
        # Sorted: clips are fetched side by side, and the same set should be the same bytes.
        "left_out": dict(sorted(left_out.items())),
        "refused": dict(sorted(refused.items())),
        "notes": dict(sorted(notes.items())),
        "clips": [{k: v for k, v in asdict(entry).items() if k != "text"} for entry in entries],
    }
    sync(folder)
    write_whole(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1).encode())
    sync(folder, folder.parent)
    return _frozen(folder, manifest, entries)


def load_manifest(folder: Path) -> Frozen | None:
    """The data set in `folder`; None unless it is whole: manifest, texts, and each clip's audio in its full length."""
    found = _read(folder)
    if found is None:
        return None
    manifest, entries = found
    return _frozen(folder, manifest, entries)


def held_out(folder: Path) -> list[Entry]:
    """The clips on the held-out side of a whole data set. Raises `ValueError` where there is none in `folder`."""
    found = _read(folder)
    if found is None:
        raise ValueError(f"There is no whole data set in {folder}.")
    return [entry for entry in found[1] if entry.side is Side.HELD_OUT]


def _frozen(folder: Path, manifest: Mapping[str, Any], entries: Sequence[Entry]) -> Frozen:
    return Frozen(
        folder=folder,
        train=_amount(entry for entry in entries if entry.side is Side.TRAIN),
        held_out=_amount(entry for entry in entries if entry.side is Side.HELD_OUT),
        left_out=manifest["left_out"],
        refused=manifest["refused"],
        notes=manifest["notes"],
        audio={entry.clip_id: entry.audio_sha256 for entry in entries},
    )


def _amount(entries: Iterable[Entry]) -> Amount:
    all_ = list(entries)
    seconds = sum(entry.seconds for entry in all_)
    return Amount(len(all_), round(seconds, 3), len({entry.recording for entry in all_}))


def _read(folder: Path) -> tuple[Mapping[str, Any], list[Entry]] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            return None
        if any(
            _digest(folder / name / "metadata.csv") != manifest["metadata_sha256"][name] for name in FOLDERS.values()
        ):
            return None
        texts = {name: _texts(folder / name / "metadata.csv") for name in FOLDERS.values()}
        entries = [_entry(row, texts) for row in manifest["clips"]]
        whole = all(_size(entry) == (folder / entry.file).stat().st_size for entry in entries)
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return None
    return (manifest, entries) if whole else None


def _entry(row: dict[str, Any], texts: Mapping[str, Mapping[str, str]]) -> Entry:
    side = Side(row.pop("side"))
    name, _, file = clip_file(side, row["clip_id"]).partition("/")
    return Entry(**row, side=side, text=texts[name][file])


def _size(entry: Entry) -> int:
    return HEADER_BYTES + 2 * round(entry.seconds * SAMPLE_RATE)


def _metadata(entries: Iterable[Entry]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # its line ends make it quote a carriage return in a text, too
    writer.writerow(_COLUMNS)
    writer.writerows((entry.file.partition("/")[2], entry.text) for entry in entries)
    return text.getvalue().encode()


def _texts(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["file_name"]: row["transcription"] for row in csv.DictReader(file)}


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
