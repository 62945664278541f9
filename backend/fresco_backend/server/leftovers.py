# SPDX-License-Identifier: Apache-2.0
"""What a worker that was killed leaves beside a delivery: one hidden file that is not whole, with its process id."""
from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from fresco_backend.queue.job_state import JobStatus


def worker_name(process: int) -> str:
    """A name that no other worker ever had, and that tells its process id."""
    return f"{process}-{secrets.token_hex(4)}"


def sweep(job: JobStatus) -> None:
    """Delete what the job's last worker, which is dead, left of files that it was writing.

    Of others on a shared disk nothing is touched: `deliveries.part_of` writes the process id into the names.
    """
    if job.worker is None:
        return
    process = job.worker.partition("-")[0]
    with suppress(OSError):  # the folder is gone, or not to be written: nothing depends on this
        for part in Path(job.output).parent.glob(f".*.{process}.*.part"):
            part.unlink(missing_ok=True)
