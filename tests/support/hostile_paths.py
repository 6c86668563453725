"""Names that try to leave a run's directory, a directory full of traps, and a process that reads them all.

``python hostile_paths.py ROOT BUCKET_URL SWAPS`` reads every name as the daemon would, from the directory first and
then from the bucket; then one clip so many times more, while somebody else swaps what lies under its name. It opens
``ROOT/../begin`` before and ``ROOT/../end`` after that, for whoever traces it, and tells what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from daemon.audio import AudioReader, BucketAudio, FirstOf, FolderAudio
from daemon.decode import Decoder
from daemon.errors import AmbaraError
from daemon.local.speech import silence, wav_bytes

RUN = "0b9a8c3e-5a38-4e0a-8a51-6d8a7c1d2e3f"
INSIDE, OUTSIDE = 0.2, 0.4
"""Seconds of the sound files inside and outside of the root: their lengths tell which was read."""

NAMES = (
    # Up, and away.
    *("..", "../secret.wav", "../../secret.wav", "clips/../../secret.wav", "clips/../../../secret.wav"),
    *("/etc/passwd", "//etc/passwd", "/proc/self/environ", "clips//../../secret.wav", "./../secret.wav"),
    # Control characters, and what C and HTTP end a name with.
    *("../secret.wav\0", "clips/a.wav\0.txt", "clips/a.wav\n", "clips/\r\nHost: elsewhere\r\n", "clips/\x1b[2J.wav"),
    # Coded once, twice, overlong, with the other slash.
    *("%2e%2e/secret.wav", "..%2f..%2fsecret.wav", "%252e%252e%252fsecret.wav", "%c0%ae%c0%ae/secret.wav"),
    *("clips%2f..%2f..%2fsecret.wav", "%2fetc%2fpasswd", "..\\..\\secret.wav", "clips\\..\\..\\secret.wav"),
    # What becomes dots and slashes when somebody normalises it, and what turns the reading direction.
    *("\uff0e\uff0e/secret.wav", "\u2025/secret.wav", "clips\uff0f..\uff0f..\uff0fsecret.wav", "clips/\u202evaw.a"),
    *("clips/\ud800.wav", "clips/\u2028a.wav"),
    # Longer than a name, and than a path.
    *("clips/" + "a" * 300, "clips/" + "é" * 200, "/".join(["a" * 200] * 40)),
    # What lies in the directory of `traps`.
    *("clips/link.wav", "clips/near.wav", "clips/up/secret.wav", "clips/loop.wav", "clips/null.wav", "clips/pipe.wav"),
    *("clips/socket.wav", "clips/folder.wav", "clips/a.wav/b.wav", "clips/up/top/" + RUN + "/clips/a.wav"),
)


def traps(folder: Path) -> Path:
    """`folder`/top with a clip of `INSIDE` seconds, beside and before files of `OUTSIDE` seconds. Returns the root."""
    root = folder / "top"
    clips = root / RUN / "clips"
    clips.mkdir(parents=True)
    (clips / "a.wav").write_bytes(wav_bytes(silence(INSIDE)))
    outside = folder / "outside"
    outside.mkdir()
    for path in (folder / "secret.wav", root / "secret.wav", outside / "a.wav"):
        path.write_bytes(wav_bytes(silence(OUTSIDE)))
    (clips / "link.wav").symlink_to(folder / "secret.wav")
    (clips / "near.wav").symlink_to("a.wav")
    (clips / "loop.wav").symlink_to("loop.wav")
    (clips / "up").symlink_to(folder)
    (clips / "null.wav").symlink_to("/dev/zero")
    (clips / "folder.wav").mkdir()
    os.mkfifo(clips / "pipe.wav")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(clips)  # the path of a socket is at most 107 bytes long
        server.bind("socket.wav")
        os.chdir(here)
    return root


def swap(root: Path) -> None:
    """Once round: the clip's directory becomes a link to the outside and itself again, then the clip does."""
    clips, kept, outside = root / RUN / "clips", root / RUN / "kept", root.parent / "outside"
    clips.rename(kept)
    clips.symlink_to(outside)
    clips.unlink()
    kept.rename(clips)
    (clips / "new").symlink_to(outside / "a.wav")
    (clips / "new").replace(clips / "a.wav")
    (clips / "new").write_bytes(wav_bytes(silence(INSIDE)))
    (clips / "new").replace(clips / "a.wav")


async def outcome(reader: AudioReader, name: str) -> str:
    """The length of what was read, in tenths of a second, or the reason why not."""
    try:
        return f"{len(await reader.read(RUN, name)) / 16_000:.1f} s"
    except AmbaraError as error:
        return error.reason


async def main(root: Path, url: str, swaps: int) -> dict[str, Any]:
    """See above."""
    bucket = BucketAudio(url, "sb_secret_of_nobody", spool=root.parent / "spool")
    decoder = Decoder()
    both = AudioReader(FirstOf([FolderAudio(root=root), bucket]), decoder)
    async with both, AudioReader(FolderAudio(root=root), decoder) as folder:
        # Whatever is loaded late is loaded now, in the decoder's process too.
        await outcome(both, "clips/nothing.wav")
        while await outcome(folder, "clips/a.wav") != f"{INSIDE:.1f} s":
            pass
        opened: Counter[tuple[str, bool]] = Counter()
        watching = [True]

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and watching and isinstance(arguments[0], str | bytes):
                opened[os.fsdecode(arguments[0]), bool(arguments[2] & os.O_NOFOLLOW)] += 1

        (root.parent / "begin").open().close()
        sys.addaudithook(hear)
        names = {name: await outcome(both, name) for name in NAMES}
        races = Counter([await outcome(folder, "clips/a.wav") for _ in range(swaps)])
        watching.clear()
        (root.parent / "end").open().close()
    return {"names": list(names.values()), "races": races, "opened": [[*key] for key in opened]}


if __name__ == "__main__":
    told = asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    sys.stdout.write(json.dumps(told))
