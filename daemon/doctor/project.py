"""Checks of the project: who answers, to whom, and what is installed there."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from uuid import uuid4

from daemon import certificates, migrate
from daemon.audio import BucketAudio
from daemon.audio_source import MissingAudio
from daemon.clips import SCHEMA_VERSION
from daemon.credentials import KEY_VARIABLE, ROLE, URL_VARIABLE
from daemon.doctor.finding import Fault, NotAsked
from daemon.doctor.patient import Patient
from daemon.errors import AmbaraError, ConfigurationError, TemporaryError

SKEW_S = 60.0
"""A clock that differs by more has tokens refused and hours of training shifted."""
SET_URL = f"export {URL_VARIABLE}=https://abcdefgh.supabase.co"
SET_KEY = f"export {KEY_VARIABLE}=…   # the service_role (secret) key of the project's API settings"
SET_DB_URL = f"export {migrate.DB_URL_VARIABLE}=postgresql://postgres:…@db.abcdefgh.supabase.co:5432/postgres"
SET_CLOCK = "sudo timedatectl set-ntp true"
CERTIFIED = {
    certificates.EXPIRED: f"{SET_CLOCK}\n# and renew the certificate where the project's gateway has it",
    certificates.WRONG_NAME: SET_URL,
    certificates.UNKNOWN: f"export {certificates.FILE_VARIABLE}=/etc/ssl/certs/ca-certificates.crt   "
    "# with the project's authority in it",
}
"""What mends a certificate that does not verify."""
clock = time.time


async def address(patient: Patient) -> str:
    """Ask one question; the checks behind this one read from its answer as well."""
    url = patient.settings.supabase.url
    try:
        patient.role = await patient.database.call("ambara_whoami", {}, str)
    except TemporaryError as error:
        if error.reason in CERTIFIED:
            raise Fault(str(error), CERTIFIED[error.reason]) from error
        raise
    except AmbaraError as error:
        patient.refusal = error
    return f"a Supabase project answers at {url}"


def key(patient: Patient) -> str:
    """Whether the project knows the key."""
    if patient.refusal and patient.refusal.reason == "key-refused":
        raise Fault(str(patient.refusal), SET_KEY)
    return "the project takes the key"


def role(patient: Patient) -> str:
    """For whom the key speaks."""
    if patient.role is None:
        raise NotAsked("the database does not know ambara_whoami")
    if patient.role in {"anon", "authenticated"}:
        raise Fault(f"the key speaks for the role {patient.role}, which may not write drafts", SET_KEY)
    return f"the key speaks for {patient.role}"


async def database(patient: Patient) -> str:
    """Whether SUPABASE_DB_URL, where it is set, leads to the dataset."""
    if not patient.db_url:
        raise NotAsked(f"{migrate.DB_URL_VARIABLE} is not set")
    patient.pending = await asyncio.to_thread(migrate.pending, patient.db_url)
    return "the dataset's tables are there"


def migrations(patient: Patient) -> str:
    """What is not recorded as applied."""
    if patient.pending is None:
        raise NotAsked(f"only the database itself knows what was applied; set {migrate.DB_URL_VARIABLE}")
    if patient.pending:
        raise Fault(f"not applied: {', '.join(patient.pending)}", patient.migrate())
    return "all are applied"


async def schema(patient: Patient) -> str:
    """Whether the functions are as new as this code."""
    try:
        found = await patient.database.call("ambara_schema_version", {}, int)
    except ConfigurationError as error:
        raise Fault("the database does not know Ambara's functions", patient.migrate()) from error
    if found < SCHEMA_VERSION:
        raise Fault(f"the database has schema {found}, and {SCHEMA_VERSION} is needed", patient.migrate())
    return f"version {found}"


async def examination(patient: Patient) -> str:
    """What the database says of itself; the checks of `daemon.doctor.facts` judge it."""
    before = clock()
    try:
        patient.facts = await patient.database.call("ambara_examine", {}, dict)
    except ConfigurationError as error:
        raise Fault(
            "the database does not know ambara_examine, or keeps it from this key", patient.migrate()
        ) from error
    patient.asked_at = (before + clock()) / 2
    return "the database says how it is set up"


async def bucket(patient: Patient) -> str:
    """The bucket, and a read by the daemon's own way: of a file that nobody has, because any other would be private."""
    supabase = patient.settings.supabase
    try:
        await patient.store.check_bucket(supabase.bucket)
    except ConfigurationError as error:
        raise Fault(str(error), _make_bucket(patient)) from error
    audio = BucketAudio(
        supabase.url, supabase.key.get_secret_value(), apikey=supabase.apikey.get_secret_value(), bucket=supabase.bucket
    )
    try:
        async with audio.open(str(uuid4()), "doctor.wav"):
            pass
    except MissingAudio:
        return f"{supabase.bucket} is there, and may be read"
    finally:
        await audio.close()
    raise Fault(f"{supabase.bucket} has a file where there is none", SET_URL)


def _make_bucket(patient: Patient) -> str:
    name = patient.settings.supabase.bucket.replace("'", "''")
    values = f"values ('{name}', '{name}', false) on conflict (id) do nothing;"
    sql = f"insert into storage.buckets (id, name, public) {values}"
    # The role of its own sees a bucket by a policy, which may be what is missing.
    return f"{sql} select public.ambara_admit();" if patient.role == ROLE else sql


def skew(patient: Patient) -> str:
    """This host's clock against the database's."""
    ahead = patient.asked_at - datetime.fromisoformat(patient.facts["now"]).timestamp()
    if abs(ahead) > SKEW_S:
        late = "ahead of" if ahead > 0 else "behind"
        raise Fault(f"this host's clock is {abs(ahead):,.0f} s {late} the database's", SET_CLOCK)
    return f"this host's clock and the database's differ by {abs(ahead):.1f} s"
