# SPDX-License-Identifier: Apache-2.0
"""An environment of Open Job Description that keeps the model loaded from one task of a session to the next.

A server runs while the session does; tasks submit their shots to it. It also ends by itself after minutes without work,
because a session that is killed never comes to its end.
"""

from __future__ import annotations

import shlex
from typing import Any

from fresco_backend.farm.plan import FarmPlan

IDLE_MINUTES = 10
_LISTENS = 300  # seconds until the server must listen
_ENTER = """\
#!/bin/sh
set -eu
export FRESCO_CONNECTION='{{{{Session.WorkingDirectory}}}}/connection.json'
export FRESCO_QUEUE='{{{{Session.WorkingDirectory}}}}/queue.sqlite'
export FRESCO_PATH_MAPPING='{{{{Session.PathMappingRulesFile}}}}'
echo "openjd_env: FRESCO_CONNECTION=$FRESCO_CONNECTION"
echo "openjd_env: FRESCO_QUEUE=$FRESCO_QUEUE"
# Its output goes to a file: a session waits for whoever holds its own.
nohup {serve} > '{{{{Session.WorkingDirectory}}}}/server.log' 2>&1 < /dev/null &
for _ in $(seq {listens}); do
  [ -s "$FRESCO_CONNECTION" ] && exit 0
  sleep 1
done
cat '{{{{Session.WorkingDirectory}}}}/server.log'
exit 75
"""


def environment(plan: FarmPlan) -> dict[str, Any]:
    """The environment: a server for the folders of the plan, started on entering and stopped on leaving."""
    roots = [f"--root={folder}" for folder in dict.fromkeys((*plan.inputs, plan.output))]
    serve = shlex.join([*plan.site.command, "serve", f"--idle-exit={IDLE_MINUTES}", *roots])
    program, *words = plan.site.command
    script = _ENTER.format(serve=serve, listens=_LISTENS)
    return {
        "name": "FrescoServer",
        "script": {
            "embeddedFiles": [{"name": "Enter", "type": "TEXT", "data": script}],
            "actions": {
                "onEnter": {"command": "sh", "args": ["{{Env.File.Enter}}"]},
                "onExit": {"command": program, "args": [*words, "stop", "--now"]},
            },
        },
    }


def submission(plan: FarmPlan) -> dict[str, Any]:
    """The action of the first step where that server runs: it renders the whole shot, and later steps find it done."""
    program, *words = plan.site.command
    return {"command": program, "args": [*words, "submit", "{{Param.Shot}}", "--watch", "--no-start"]}
