"""Generated rows for `scale.py` and `tests/test_scale.py`: a dataset of any size, as varied as a real one.

The oldest third of the runs is corrected and discarded, the newest twentieth was never drafted, and between them is
what waits for people with a draft by the live version. Strewn in: people who type, reading sessions, chapters with
their pieces, priorities, audio that is missing or broken, claims of another worker. The same rows each time.
"""

from __future__ import annotations

from typing import Any

import psycopg

from daemon import migrate
from daemon.local.origin import origin_sql, platform_sql

Db = psycopg.Connection[Any]

_DRAFT = "left(repeat(md5(i::text) || ' ', 7), 40 + h % 160)"
_HEARD_AT = "created_at + interval '1 hour'"

_MADE = """
create temp table made as
select i, h, r, kind, md5('clip ' || i)::uuid as id, md5('run ' || r)::uuid as run_id,
  now() - interval '400 days' * (1 - r::float8 / {runs}) as created_at,
  kind in ('drafted', 'typing') or (kind in ('corrected', 'discarded') and h % 10 < 8) as heard
from (
  select i, h, r,
    case
      when r % 40 = 39 then case when h < 600 then 'recorded' else 'to be read' end
      when r % 20 = 19 and i % {per_run} = 0 then 'chapter'
      when r % 20 = 19 and i % {per_run} < 6 then 'piece'
      when i < 0.35 * {clips} then
        case when h < 780 then 'corrected' when h < 950 then 'discarded' when h < 955 then 'typing' else 'drafted' end
      when i < (1 - {new}) * {clips} then
        case when h < 960 then 'drafted' when h < 970 then 'typing' when h < 975 then 'discarded'
          when h < 985 then 'broken' when h < 995 or i % 64 > 0 then 'missing' else 'due' end
      when i < (1 - {new}) * {clips} + 64 and {clips} > 2000 then 'claimed'
      else 'new'
    end as kind
  from (
    select i, (abs(hashint8(i)::bigint) % 1000)::int as h, i / {per_run} as r from generate_series(0, {clips} - 1) as i
  ) as numbered
) as told;
create index on made (kind);
analyze made
"""
_INSERTED = f"""
insert into runs (id, label, source, created_at, type)
select distinct run_id, 'tape ' || r % 200, 'church', created_at,
  case when r % 40 = 39 then 'reading' else 'extraction' end
from made;

insert into clips (id, run_id, file_name, source_file, start_sec, end_sec, duration_sec, speech_score, music_score,
  draft_transcription, corrected_transcription, status, priority, corrected_at, corrected_by, created_at, updated_at,
  paragraphs)
select id, run_id,
  case when kind in ('recorded', 'to be read', 'piece') then 'chunks/' else 'clips/clip_' end
    || lpad(i::text, 8, '0') || '.wav',
  'tape ' || r % 200 || '.mp3', 8 * (i % 250), 8 * (i % 250) + 5 + h % 25, 5 + h % 25, 0.9, 0.1, {_DRAFT},
  case when kind in ('corrected', 'recorded') then {_DRAFT} || ' as said' when kind = 'typing' then 'as sa' end,
  case when kind in ('corrected', 'recorded') then 'corrected' when kind = 'discarded' then kind else 'pending' end,
  case when h % 50 = 0 then h % 7 else 0 end,
  case when kind in ('corrected', 'discarded') then created_at + interval '1 day' end,
  case when kind in ('corrected', 'discarded') then 'somebody' end,
  created_at,
  case when heard then {_HEARD_AT} else created_at end,
  case when kind = 'chapter' then '[]'::jsonb end
from made;

insert into model_versions (name, fingerprint, kind, stage, live_seq, live_at) values
  ('base', 'base', 'base', 'retired', nextval('ambara_live_seq'), now()),
  ('trained-0002', 'trained', 'trained', 'live', nextval('ambara_live_seq'), now());

create temp table live as select id, live_seq from model_versions where stage = 'live';

insert into draft_state (clip_id, version_id, settled_seq, drafted_at, text_md5, fence)
select m.id, l.id, l.live_seq, {_HEARD_AT}, md5({_DRAFT}), nextval('ambara_fence') from made m, live l where heard;

insert into draft_state (clip_id, fence, attempts, failed_seq, failed_row_at, retry_at, reason, message)
select m.id, nextval('ambara_fence'), 3, l.live_seq, created_at,
  case kind when 'broken' then 'infinity' when 'due' then now() - interval '1 min' else now() + interval '3 hours' end,
  case kind when 'broken' then 'audio-broken' else 'audio-missing' end, 'no audio'
from made m, live l where kind in ('broken', 'missing', 'due');

insert into draft_state (clip_id, worker, fence, claimed_seq, claimed_at, clip_updated_at, lease_until)
select m.id, 'another', nextval('ambara_fence'), l.live_seq, now(), created_at, now() + interval '1 day'
from made m, live l where kind = 'claimed';

insert into drafts (clip_id, version_id, text, confidence, worker, created_at)
select m.id, v.id, {_DRAFT}, -0.3, 'another', m.{_HEARD_AT}
from made m join model_versions v on v.stage = 'live' or m.h % 2 = 0 where heard;

insert into training_recordings (recording, side)
select 'tape ' || n || '.mp3', case when n % 5 = 0 then 'held-out' else 'train' end from generate_series(0, 199) n;
insert into training_runs (version_id, status, ended_at) select id, 'finished', now() from live;
insert into training_samples (run_id, clip_id, text_md5, side)
select t.id, m.id, md5({_DRAFT} || ' as said'), case when m.r % 200 % 5 = 0 then 'held-out' else 'train' end
from made m, training_runs t where kind in ('corrected', 'recorded') and h % 20 > 0;
insert into draft_edits
  (clip_id, version_id, draft_id, text_md5, recording, corrected_at, words, characters, word_edits, character_edits)
select e.clip_id, e.version_id, e.draft_id, md5(e.words), e.recording, e.corrected_at, 20, 100, 2, 8
from ambara_edited() e join made m on m.id = e.clip_id where m.h % 20 > 0;
insert into correction_queue (clip_id, learn, measure)
select m.id, true, true from made m where kind in ('corrected', 'recorded') and h % 20 = 0;

insert into draft_queue (clip_id, priority, created_at, drafted, quiet_seq)
select w.clip_id, w.priority, w.created_at, w.drafted, w.quiet_seq from ambara_queueable() w;
update draft_queue q set quiet_seq = s.failed_seq
from draft_state s where s.clip_id = q.clip_id and s.failed_seq is not null;
drop table made, live
"""


def generate(db: Db, clips: int, new: float = 0.05) -> None:
    """Fill an empty database that has the migrations, and gather statistics. `db` is the superuser's, in autocommit;
    `new` the share that was never drafted.

    Without the triggers, for the sake of time; what they would have made is made at the end.
    """
    per_run = max(10, min(250, clips // 40))
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute(_MADE.format(clips=clips, new=new, per_run=per_run, runs=clips // per_run + 1).encode())
        db.execute(_INSERTED.encode())
    tables = "clips, draft_queue, draft_state, drafts, training_samples, draft_edits, correction_queue, runs"
    db.execute(f"vacuum (analyze) {tables}, model_versions".encode())


def database(db_url: str, name: str) -> str:
    """Make a database beside another, with the editor's tables and the migrations. Returns its connection string."""
    with psycopg.connect(db_url, autocommit=True) as db:
        db.execute(f"create database {name}".encode())
    url = db_url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(platform_sql().encode())
        db.execute(origin_sql(minimal=False).encode())
    migrate.apply(url)
    return url
