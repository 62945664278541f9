# SPDX-License-Identifier: Apache-2.0
"""A plan as three jobs of Slurm, each after the one before it.

Elements of the array are numbers of chunks from 0, because Slurm takes no index above its MaxArraySize (1001 unless it
is configured), and frames begin there. Source: sbatch(1), Slurm 22.05 and later.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fresco_backend.farm.plan import FarmPlan
from fresco_backend.files.sequences import frames_text
from fresco_backend.render.farm_stage import FarmStage

AFTER = "--dependency=afterok:$id"  # the job that the script submitted last
_LARGEST_ARRAY = 1000  # elements, where nobody configured more


def script(plan: FarmPlan, folder: Path, options: Sequence[str] = ()) -> str:
    """A shell script that submits the plan whose bundle lies in `folder`, and prints the ids of its jobs.

    options: of the site, for every job, such as "--partition=gpu".
    """
    gpu = ["--gres=gpu:1"] if plan.site.device else []
    keys = plan.words(FarmStage.KEYFRAMES, folder)
    verify = plan.words(FarmStage.VERIFY, folder)
    arrays = [_submission(plan, "in-betweens", [*options, f"--array=0-{len(part) - 1}", AFTER],
                          _chunk_command(plan, folder, part)) for part in _arrays(plan.chunks)]
    return "\n".join([
        "#!/bin/sh", "set -eu", "# One job after the other; a job whose forerunner fails is cancelled.",
        _submission(plan, "keyframes", [*options, *gpu], shlex.join(keys)), *arrays,
        _submission(plan, "verify", [*options, AFTER], shlex.join(verify)), "",
    ])  # fmt: skip


def _arrays(chunks: Sequence[tuple[int, ...]]) -> list[Sequence[tuple[int, ...]]]:
    return [chunks[start : start + _LARGEST_ARRAY] for start in range(0, len(chunks), _LARGEST_ARRAY)]


def _chunk_command(plan: FarmPlan, folder: Path, chunks: Sequence[tuple[int, ...]]) -> str:
    """The command of each element: its frames are the words of a list, counted from 1 by the shell."""
    frames = " ".join(f"--frames={frames_text(chunk)}" for chunk in chunks)
    words = shlex.join(plan.words(FarmStage.IN_BETWEENS, folder))
    return f'set -- {frames}; shift "$SLURM_ARRAY_TASK_ID"; exec {words} "$1"'


def _submission(plan: FarmPlan, step: str, options: Sequence[str], command: str) -> str:
    """--requeue: after the loss of a node the job starts again, and keeps what is finished."""
    words = ["sbatch", "--parsable", "--requeue", "--kill-on-invalid-dep=yes", f"--job-name={plan.name}.{step}"]
    # The id of the job before stands in double quotes; all other words are literal. Behind it a federation names the
    # cluster, after a semicolon.
    shown = " ".join(f'"{word}"' if word == AFTER else shlex.quote(word) for word in (*words, *options))
    return f"id=$({shown} --wrap {shlex.quote(command)})\nid=${{id%%;*}}\necho {step} \"$id\""
