"""`ambara join`: this machine trains along with a daemon on another one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from daemon.errors import ConfigurationError, TemporaryError
from daemon.learning import machines
from daemon.learning.machines import Life

_LOOK_S = 2.0
"""Between two looks at the disk that the machines share."""


def join(
    state: Annotated[
        Path, typer.Argument(help="The daemon's state directory, under the same name as there.", exists=True)
    ],
    node: Annotated[
        int, typer.Option("--node", min=1, help="This machine's number: 1 for the first besides the daemon's.")
    ],
) -> None:
    """Let this machine train along with a daemon on another one, whenever that one trains, until it is interrupted.

    The daemon has [bold]nodes[/bold] and [bold]rendezvous[/bold] in its \\[training] section. This machine needs the
    same release of everything, the same user, and no key.

    [bold]Example[/bold], on the second of two machines:

        ambara join /shared/ambara --node 1
    """
    from daemon.learning import confine, process, together

    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"{state} cannot be written by this user: run this as the user of the daemon.")
    kept = process.environment(os.environ)
    os.environ.clear()
    os.environ.update(kept)
    confine.confine(None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a word of goodbye before the end
    typer.echo(f"Waiting for a training in {state}, as machine {node}.")
    refused = set[str]()
    while True:
        call = next((each for each in machines.calls(state, node) if each.id not in refused), None)
        if call is None:
            time.sleep(_LOOK_S)
            continue
        typer.echo(f"Version {call.folder.parent.name}: training on {call.nodes} machines.")
        try:
            last = together.join(call, node, Life(call).is_over)
        except TemporaryError as error:
            last = {"message": str(error)}
        except KeyboardInterrupt:
            call.tell(node, {"event": "failed", "reason": "machines", "message": f"Machine {node} was told to leave."})
            raise
        refused.add(call.id)
        if last:
            typer.echo(str(last.get("message", "Trained." if last["event"] == "done" else "Ended.")))
