"""All checks in order, and who depends on whom."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from daemon.asr.errors import ModelError
from daemon.config import Settings
from daemon.doctor import facts, feed, host, project
from daemon.doctor.finding import Check, Fault, Finding, NotAsked, Verdict
from daemon.doctor.patient import Patient, admit
from daemon.errors import AmbaraError
from daemon.redaction import Redactor

PROJECT = (
    Check("address", project.address, (), lambda _: project.SET_URL),
    Check("key", project.key, ("address",)),
    Check("role", project.role, ("key",)),
    Check("database address", project.database, (), lambda _: project.SET_DB_URL),
    Check("migrations", project.migrations, ("database address",)),
    Check("schema", project.schema, ("role", "migrations"), lambda _: project.SET_KEY),
    Check("examination", project.examination, ("schema",)),
    Check("functions", facts.functions, ("examination",)),
    Check("tables", facts.tables, ("examination",)),
    Check("row security", facts.row_security, ("tables",)),
    Check("queue", facts.queue, ("tables",)),
    Check("replication", facts.replication, ("examination",)),
    Check("publication", facts.publication, ("tables", "replication")),
    Check("realtime", feed.round_trip, ("functions", "row security", "publication")),
    Check("bucket", project.bucket, ("role",), lambda _: project.SET_URL),
    Check("clock", project.skew, ("examination",)),
)
HOST = (
    Check("packages", host.packages),
    Check("base model", host.base_model, (), host.fetch_base),
    Check("language", host.language, ("base model",), lambda _: host.NAME_LANGUAGE),
    Check("device", host.device, (), lambda _: host.NAME_DEVICE),
    Check("processes", host.processes, ("device",), lambda _: host.ONE_PROCESS),
    Check("state directory", host.state),
    Check("disk", host.disk, ("base model", "state directory")),
    Check("hub", host.hub_token, (), lambda _: host.SET_TOKEN),
)
CHECKS = PROJECT + HOST


async def examine(
    settings: Settings, db_url: str = "", *, checks: Sequence[Check] = CHECKS, debug: bool = False
) -> AsyncIterator[Finding]:
    """Look at everything, in order; each finding comes when it is there. No text holds a key.

    `db_url`: the database's own address, if it is known. `debug` lets an unforeseen error out.
    """
    redact = Redactor((*settings.secrets(), db_url))
    blocked: dict[str, str] = {}  # check -> the fault that it waits for
    async with admit(settings, db_url) as patient:
        for check in checks:
            if cause := next((blocked[name] for name in check.needs if name in blocked), None):
                finding = Finding(check.name, f"not checked: mend {cause} first", Verdict.UNCHECKED)
                blocked[check.name] = cause
            else:
                finding = await _look(check, patient, debug=debug)
                if finding.verdict is Verdict.FAULT:
                    blocked[check.name] = check.name
            # A remedy is made of our own words and of names in the settings; `HF_TOKEN=…` has to stay as it is.
            yield replace(finding, found=redact(finding.found))


async def _look(check: Check, patient: Patient, *, debug: bool) -> Finding:
    """What one check finds. Whatever goes wrong in it is a finding too."""
    try:
        answer = check.look(patient)
        return Finding(check.name, await answer if inspect.isawaitable(answer) else str(answer))
    except NotAsked as why:
        return Finding(check.name, f"not checked: {why}", Verdict.UNCHECKED)
    except Fault as fault:
        return Finding(check.name, str(fault), Verdict.FAULT, fault.remedy)
    except (AmbaraError, ModelError) as error:
        return Finding(check.name, str(error), Verdict.FAULT, check.remedy(patient))
    except Exception as error:
        if debug:
            raise
        found = f"something unforeseen happened ({type(error).__name__})"
        return Finding(check.name, found, Verdict.FAULT, "AMBARA_DEBUG=1 ambara doctor")
