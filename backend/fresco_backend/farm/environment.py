# SPDX-License-Identifier: Apache-2.0
"""An environment of Open Job Description that keeps the model loaded from one task of a session to the next.

A server runs while the session does; tasks submit their shots to it. It also ends by itself after minutes without work,
because a session that is killed never comes to its end. Where a server of the site's own answers (FRESCO_CONNECTION on
the node), the tasks of all sessions go to that one, and it is neither started nor stopped.
"""

from __future__ import annotations

import shlex
from typing import Any

from fresco_backend.farm.plan import FarmPlan

IDLE_MINUTES = 10
_SERVE = f"serve --idle-exit={IDLE_MINUTES} --upload-limit=0"  # tasks share the node's disk
_LISTENS = 300  # seconds until the server must listen
# The session's paths come as words, so that a shell reads nothing of them but their names. A node that differs from the
# plan ends here, before a model is loaded, with the exit code that says so.
_ENTER = """\
#!/bin/sh
set -eu
shot=$1 pins=$2 rules=$3 session=$4
roots=$(%(fresco)s farm node "$shot" --pins="$pins" --path-mapping="$rules")
if [ -n "${FRESCO_CONNECTION:-}" ] && %(fresco)s status > /dev/null 2>&1; then
  echo "a server of this node answers: $FRESCO_CONNECTION"
  exit 0
fi
export FRESCO_ROOTS="$roots"
export FRESCO_CONNECTION="$session/connection.json"
export FRESCO_QUEUE="$session/queue.sqlite"
echo "openjd_env: FRESCO_CONNECTION=$FRESCO_CONNECTION"
echo "openjd_env: FRESCO_QUEUE=$FRESCO_QUEUE"
# Its output goes to a file: a session waits for whoever holds its own.
nohup %(fresco)s %(serve)s > "$session/server.log" 2>&1 < /dev/null &
for _ in $(seq %(listens)d); do
  [ -s "$FRESCO_CONNECTION" ] && exit 0
  sleep 1
done
cat "$session/server.log"
exit 75
"""
_EXIT = """\
#!/bin/sh
[ "${FRESCO_CONNECTION:-}" = "$1/connection.json" ] || exit 0
exec %(fresco)s stop --now
"""
_SESSION = "{{Session.WorkingDirectory}}"


def environment(plan: FarmPlan) -> dict[str, Any]:
    """The environment: a server for the shot of the plan, started on entering and stopped on leaving."""
    words = {"fresco": shlex.join(plan.site.command), "serve": _SERVE, "listens": _LISTENS}
    entering = ["{{Env.File.Enter}}", "{{Param.Shot}}", "{{Param.Pins}}", "{{Session.PathMappingRulesFile}}", _SESSION]
    return {
        "name": "FrescoServer",
        "script": {
            "embeddedFiles": [{"name": "Enter", "type": "TEXT", "data": _ENTER % words},
                              {"name": "Exit", "type": "TEXT", "data": _EXIT % words}],
            "actions": {
                "onEnter": {"command": "sh", "args": entering},
                "onExit": {"command": "sh", "args": ["{{Env.File.Exit}}", _SESSION]},
            },
        },
    }


def submission(plan: FarmPlan) -> dict[str, Any]:
    """The action of the first step where that server runs: it renders the whole shot, and later steps find it done."""
    program, *words = plan.site.command
    return {"command": program, "args": [*words, "submit", "{{Param.Shot}}", "--watch", "--no-start",
                                         "--path-mapping={{Session.PathMappingRulesFile}}", "--progress=openjd"]}
