"""The ledger's counts against a model in a few lines of Python, under random histories on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from corrections import fingerprint
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from witness import scalar

Sql = psycopg.Connection[Any]
RECORDINGS = ("a", "b", "c")
WORDS = st.sampled_from(["one", "two", " ", '{"_splitOrigin": true}'])
LEARNABLE = {"one", "two", "read aloud"}


@dataclass
class Clip:
    run: str
    name: str
    recording: str
    seconds: float | None
    status: str = "pending"
    words: str | None = None
    audio: bytes | None = None

    @property
    def trainable(self) -> bool:
        return self.status == "corrected" and self.words in LEARNABLE and (self.seconds or 0) <= 30


def minutes(clips: Iterable[Clip]) -> float:
    return sum(clip.seconds or 0 for clip in clips) / 60


class Loop(RuleBasedStateMachine):
    """People at the editor, and one worker that begins runs and ends them."""

    db: Sql
    storage: httpx.Client

    @initialize()
    def empty(self) -> None:
        for table in ("runs", "training_runs", "training_recordings", "training_requests", "model_versions"):
            self.db.execute(f"delete from {table}".encode())
        self.clips: dict[str, Clip] = {}
        self.runs = {
            recording: str(scalar(self.db, "insert into runs (label) values (%s) returning id", recording))
            for recording in RECORDINGS
        }
        self.sides: dict[str, str] = {}
        self.attempted: set[tuple[str, str | None, bytes | None]] = set()
        self.ends: list[str] = []
        self.trained = (0, 0.0)
        self.asked = False
        self.held: dict[str, Any] | None = None
        self.abandoned = False
        # Where the interesting histories begin: one recording of each kind, and something to do with it.
        self.decide("a", "train")
        self.decide("b", "held-out")
        self.arrive_and_correct("a", 6.0, "one")

    def pick(self, number: int) -> str:
        # In the order of their coming: ids are random, and a history has to be the same when it is played again.
        return list(self.clips)[number % len(self.clips)]

    def write(self, clip_id: str, **change: Any) -> None:
        for name, value in change.items():
            setattr(self.clips[clip_id], name, value)
        clip = self.clips[clip_id]
        self.db.execute(
            "update clips set status = %s, corrected_transcription = %s where id = %s",
            [clip.status, clip.words, clip_id],
        )

    def is_new(self, clip_id: str) -> bool:
        clip = self.clips[clip_id]
        known = {audio for who, words, audio in self.attempted if (who, words) == (clip_id, clip.words)}
        return clip.trainable and self.sides.get(clip.recording) != "held-out" and not (
            known if clip.audio is None else clip.audio in known
        )  # fmt: skip

    @rule(recording=st.sampled_from(RECORDINGS), seconds=st.sampled_from([6.0, 30.0, 31.0, None]), words=WORDS)
    def arrive_and_correct(self, recording: str, seconds: float | None, words: str) -> None:
        run, name = self.runs[recording], f"clips/{len(self.clips)}-{fingerprint()}.wav"
        statement = (
            "insert into clips (run_id, file_name, source_file, duration_sec) values (%s, %s, %s, %s) returning id"
        )
        clip_id = str(scalar(self.db, statement, run, name, recording, seconds))
        self.clips[clip_id] = Clip(run, name, recording, seconds)
        self.write(clip_id, status="corrected", words=words)

    @precondition(lambda self: self.clips)
    @rule(number=st.integers(0, 5), words=WORDS)
    def correct(self, number: int, words: str) -> None:
        self.write(self.pick(number), status="corrected", words=words)

    @precondition(lambda self: self.clips)
    @rule(number=st.integers(0, 5))
    def undo(self, number: int) -> None:
        self.write(self.pick(number), status="pending", words=None)

    @precondition(lambda self: self.clips)
    @rule(number=st.integers(0, 5))
    def discard(self, number: int) -> None:
        self.write(self.pick(number), status="discarded")

    @precondition(lambda self: self.clips)
    @rule(number=st.integers(0, 5), audio=st.sampled_from([b"RIFF 1", b"RIFF 2"]))
    def record(self, number: int, audio: bytes) -> None:
        clip_id = self.pick(number)
        clip = self.clips[clip_id]
        answer = self.storage.post(f"/object/clips/{clip.run}/{clip.name}", content=audio, headers={"x-upsert": "true"})
        answer.raise_for_status()
        clip.audio = audio
        self.write(clip_id, status="corrected", words="read aloud")

    @precondition(lambda self: any(clip.audio for clip in self.clips.values()))
    @rule(number=st.integers(0, 5))
    def lose_audio(self, number: int) -> None:
        sounding = [clip for clip in self.clips.values() if clip.audio]
        clip = sounding[number % len(sounding)]
        gone = {"prefixes": [f"{clip.run}/{clip.name}"]}
        self.storage.request("DELETE", "/object/clips", json=gone).raise_for_status()
        clip.audio = None

    @precondition(lambda self: self.clips)
    @rule(number=st.integers(0, 5))
    def delete(self, number: int) -> None:
        clip_id = self.pick(number)
        del self.clips[clip_id]
        self.db.execute("delete from clips where id = %s", [clip_id])

    @rule(recording=st.sampled_from(RECORDINGS), side=st.sampled_from(["train", "train", "held-out"]))
    def decide(self, recording: str, side: str) -> None:
        self.sides.setdefault(recording, side)
        self.db.execute("select ambara_decide(jsonb_build_object(%s::text, %s::text))", [recording, side])

    @rule()
    def ask(self) -> None:
        self.asked = True
        self.db.execute("select ambara_ask_training()")

    @rule(bar=st.integers(1, 3), bar_minutes=st.sampled_from([0.0, 0.3]))
    def begin(self, bar: int, bar_minutes: float) -> None:
        found = scalar(self.db, "select ambara_begin_training('w', %s, %s, 60, '{}')", bar, bar_minutes)
        if self.held:
            assert (found is not None) == self.abandoned
            if found:
                assert (found["id"], found["fence"]) == (self.held["id"], self.held["fence"] + 1)
                self.held, self.abandoned = found, False
            return
        usable = [i for i, clip in self.clips.items() if clip.trainable and clip.recording in self.sides]
        training = [i for i in usable if self.sides[self.clips[i].recording] == "train"]
        new = [i for i in training if self.is_new(i)]
        reached = len(new) >= bar or (bar_minutes > 0 and minutes(self.clips[i] for i in new) >= bar_minutes)
        assert (found is not None) == bool(training and (reached or self.asked))
        if found:
            self.held, self.asked = found, False
            self.attempted |= {(i, self.clips[i].words, self.clips[i].audio) for i in usable}
            self.trained = (len(training), minutes(self.clips[i] for i in training))

    @precondition(lambda self: self.held)
    @rule(well=st.booleans())
    def end(self, well: bool) -> None:
        assert self.held
        call = "finish_training('w', %s, %s, 'm', %s, '{}')" if well else "fail_training('w', %s, %s, %s, '{}')"
        answer = scalar(self.db, f"select ambara_{call}", self.held["id"], self.held["fence"], fingerprint())
        assert answer
        self.ends.append("finished" if well else "failed")
        self.held, self.abandoned = None, False

    @rule(well=st.booleans())
    def attempt(self, well: bool) -> None:
        self.ask()
        self.begin(1, 0.0)
        if self.held:
            self.end(well)

    @precondition(lambda self: self.held)
    @rule()
    def vanish(self) -> None:
        self.abandoned = True
        self.db.execute(
            "update training_runs set lost = 0, lease_until = now() - interval '1 s' where status = 'active'"
        )

    @invariant()
    def the_database_says_the_same(self) -> None:
        found = scalar(self.db, "select ambara_training()")
        new = [clip for clip_id, clip in self.clips.items() if self.is_new(clip_id)]
        recordings = {clip.recording for clip in self.clips.values() if clip.trainable}
        in_a_row = next((i for i, end in enumerate(reversed(self.ends)) if end == "finished"), len(self.ends))
        assert (found["new_clips"], round(found["new_minutes"], 6)) == (len(new), round(minutes(new), 6))
        assert (found["trained_clips"], round(found["trained_minutes"], 6)) == (
            self.trained[0], round(self.trained[1], 6)
        )  # fmt: skip
        assert found["recordings"] == len(recordings)
        assert found["held_out"] == sum(self.sides.get(recording) == "held-out" for recording in recordings)
        assert found["asked"] == self.asked
        assert (found["failure"] or {}).get("in_a_row", 0) == in_a_row
        assert (found["active"] is not None) == (self.held is not None)
        if self.held:
            assert found["active"]["abandoned"] == self.abandoned


def test_the_counts_equal_the_model(clean_stack: Any, db: Sql) -> None:
    headers = {"Authorization": f"Bearer {clean_stack.service_role_key}", "apikey": clean_stack.service_role_key}
    with httpx.Client(base_url=f"{clean_stack.url}/storage/v1", headers=headers, trust_env=False) as storage:
        machine = type("Machine", (Loop,), {"db": db, "storage": storage})
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            machine,
            settings=settings(
                max_examples=60,
                stateful_step_count=30,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
