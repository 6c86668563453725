"""What the database saw of training runs, in tables and by triggers that exist only in the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from typing import Any

import psycopg

Db = psycopg.Connection[Any]
_INSTALL = """
drop schema if exists storm cascade;
create schema storm;
create table storm.samples (at bigserial, run_id bigint, clip_id text, text_md5 text, audio_tag text, side text);
create table storm.runs (at bigserial, run_id bigint, worker text, fence bigint, status text, was text);
create function storm.sampled() returns trigger language plpgsql security definer as $$
begin
  insert into storm.samples (run_id, clip_id, text_md5, audio_tag, side)
  values (new.run_id, new.clip_id::text, new.text_md5, new.audio_tag, new.side);
  return null;
end $$;
create function storm.ran() returns trigger language plpgsql security definer as $$
begin
  if tg_op = 'INSERT' or (old.fence, old.status) is distinct from (new.fence, new.status) or old.status <> 'active' then
    insert into storm.runs (run_id, worker, fence, status, was) values (new.id, new.worker, new.fence, new.status,
      case when tg_op = 'UPDATE' then old.status end);
  end if;
  return null;
end $$;
create trigger storm after insert on public.training_samples for each row execute function storm.sampled();
create trigger storm after insert or update on public.training_runs for each row execute function storm.ran();
"""
_REMOVE = (
    "drop trigger if exists storm on public.training_samples",
    "drop trigger if exists storm on public.training_runs",
    "drop schema if exists storm cascade",
)
"""Each by itself: a daemon's last statement may hold one of these tables and want the other."""


@contextmanager
def audited(db: Db) -> Iterator[None]:
    """Look over the shoulder of every training run."""
    db.execute(_INSTALL.encode())
    try:
        yield
    finally:
        for statement in _REMOVE:
            db.execute(statement.encode())


def sampled(db: Db, after: int) -> list[tuple[int, set[tuple[str, str, str | None]]]]:
    """Runs begun after run `after`, and what each counted on the training side, also of clips that are gone by now."""
    query = (
        "select run_id, clip_id, text_md5, audio_tag from storm.samples where run_id > %s and side = 'train' order by 1"
    )
    rows = db.execute(query, [after]).fetchall()
    return [(int(run), {tuple(row[1:]) for row in group}) for run, group in groupby(rows, key=lambda row: row[0])]


def broken_lives(db: Db) -> list[str]:
    """Runs that did not end exactly once, were held twice under one fence, or lived while another did."""
    rows = db.execute("select run_id, fence, status, was from storm.runs order by at").fetchall()
    found = []
    for (run, *_), (following, _, _, was) in pairwise(rows):
        if following != run and was is not None:
            found.append(f"run {following} changed after another had begun")
    for run, each in groupby(sorted(rows, key=lambda row: row[0]), key=lambda row: row[0]):
        life = list(each)
        statuses = [status for _, _, status, _ in life]
        fences = [fence for _, fence, status, _ in life if status == "active"]
        if statuses[:-1] != ["active"] * (len(statuses) - 1) or statuses[-1] == "active":
            found.append(f"run {run} went {statuses}")
        if fences != list(range(1, len(fences) + 1)):
            found.append(f"run {run} had the fences {fences}")
        if life[-1][1] != fences[-1]:
            found.append(f"run {run} was ended under fence {life[-1][1]}, and {fences[-1]} held it")
    return found
