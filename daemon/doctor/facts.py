"""Checks of what `ambara_examine` says: tables, row security, functions, queue, publication."""

from __future__ import annotations

import re
from collections.abc import Sequence

from daemon.credentials import ROLE
from daemon.doctor.finding import Fault, NotAsked
from daemon.doctor.patient import Patient
from daemon.feed.loss import TABLES
from daemon.migrate import migrations

PUBLISHED = tuple(name.removeprefix("public.") for name in TABLES)
PEOPLES = ("runs", "clips")
READ = (*PEOPLES, "ambara_daemons")
"""What the daemon reads by itself under a role of its own."""
TRIGGERS = {"ambara_clips_came": "clips that come", "ambara_clips_changed": "clips that are changed"}
"""By which the queue follows `clips`, and what it hears of by each."""
MEANWHILE = "-- What came meanwhile is found by a daemon when it starts, and every half hour."
RESTRICT = "select public.ambara_restrict(); grant execute on function public.ambara_whoami() to anon, authenticated;"
PEOPLE_MAY = """\
create policy "Signed-in people read {0}" on public.{0} for select to authenticated using (true);
create policy "Signed-in people add {0}" on public.{0} for insert to authenticated with check (true);
create policy "Signed-in people correct {0}" on public.{0} for update to authenticated using (true);
"""
_MADE = re.compile(r"^create or replace function public\.(ambara_\w+)", re.MULTILINE)


def functions(patient: Patient) -> str:
    """All that the migrations make, for the daemon's role and for nobody else."""
    made = {name for each in migrations() for name in _MADE.findall(each.sql)}
    if missing := sorted(made - set(patient.facts["functions"])):
        raise Fault(f"missing: {', '.join(missing)}", patient.migrate())
    if refused := patient.facts["refused"].get(patient.role):
        raise Fault(f"{patient.role} may not call {', '.join(refused)}", RESTRICT)
    if opened := patient.facts["open"]:
        raise Fault(f"everybody with the public key may call {', '.join(opened)}", RESTRICT)
    return f"all {len(made)} are there, and the daemon's alone"


def tables(patient: Patient) -> str:
    """Whether each is there, with a key where Realtime needs one."""
    found = patient.facts["tables"]
    if missing := sorted(name for name, table in found.items() if table is None):
        raise Fault(f"missing: {', '.join(missing)}", patient.migrate())
    if keyless := [name for name in PUBLISHED if not found[name]["key"]]:
        column = {"clips": "id", "ambara_daemons": "worker"}
        raise Fault(
            f"{' and '.join(keyless)}: no primary key, so Realtime does not tell which row changed",
            " ".join(f"alter table public.{name} add primary key ({column[name]});" for name in keyless),
        )
    return f"all {len(found)} are there"


def row_security(patient: Patient) -> str:
    """Without it, whoever has the public key may do what the table's grants allow: on Supabase, everything."""
    found = {name: table for name, table in patient.facts["tables"].items() if table}
    bare = sorted(name for name, table in found.items() if not table["row_security"])
    if bare:
        # People would see nothing any more where no policy lets them.
        admit = "".join(PEOPLE_MAY.format(name) for name in bare if name in PEOPLES and not found[name]["policies"])
        enable = "\n".join(f"alter table public.{name} enable row level security;" for name in bare)
        raise Fault(f"off for {', '.join(bare)}: the public key opens them to everybody", admit + enable)
    if patient.role == ROLE and (shut := [name for name in READ if not found[name]["admits"]]):
        raise Fault(f"{ROLE} sees no row of {', '.join(shut)}", "select public.ambara_admit();")
    return f"on for all {len(found)} tables"


def queue(patient: Patient) -> str:
    """Whether `draft_queue` follows `clips`. Without it new clips are found only every half hour."""
    triggers = patient.facts.get("triggers")
    if triggers is None:
        raise NotAsked("an old migration was applied after newer ones; `ambara migrate --again` applies all in order")
    missing = [name for name in TRIGGERS if name not in triggers]
    if missing:
        raise Fault(f"clips has not the trigger {' and '.join(missing)}: {_unheard(missing)}", patient.migrate())
    if off := [name for name in TRIGGERS if not triggers[name]]:
        enable = [f"alter table public.clips enable trigger {name};" for name in off]
        named = f"the trigger {' and '.join(off)} on clips is switched off"
        raise Fault(f"{named}: {_unheard(off)}", "\n".join([*enable, MEANWHILE]))
    if not patient.facts["queue_order"]:
        raise Fault("draft_queue has not the index draft_queue_order: each claim reads all of it", patient.migrate())
    return "draft_queue follows clips"


def _unheard(triggers: Sequence[str]) -> str:
    return f"the queue does not hear of {' and of '.join(TRIGGERS[name] for name in triggers)}"


def replication(patient: Patient) -> str:
    """Whether the database writes down changes in the form that Realtime reads."""
    level = patient.facts["wal_level"]
    _unless_off(patient)
    if level != "logical":
        raise Fault(
            f"wal_level is {level}: Realtime reads nothing from it",
            "alter system set wal_level = 'logical'; -- then restart the database",
        )
    return "wal_level is logical"


def publication(patient: Patient) -> str:
    """Whether Realtime is told of the tables."""
    found = patient.facts["publication"]
    _unless_off(patient)
    if found is None:
        raise Fault(
            "there is no publication supabase_realtime",
            f"create publication supabase_realtime for table {', '.join(TABLES)};",
        )
    if missing := [name for name in PUBLISHED if name not in found["tables"]]:
        named = ", ".join(f"public.{name}" for name in missing)
        raise Fault(
            f"supabase_realtime does not name {' and '.join(missing)}: Realtime never tells of them",
            f"alter publication supabase_realtime add table {named};",
        )
    if not found["changes"]:
        raise Fault(
            "supabase_realtime leaves out some kinds of change",
            "alter publication supabase_realtime set (publish = 'insert, update, delete, truncate');",
        )
    return f"supabase_realtime names {' and '.join(PUBLISHED)}"


def _unless_off(patient: Patient) -> None:
    if not patient.settings.realtime.enabled:
        raise NotAsked("Realtime is off in the settings: the sweep finds new clips")
