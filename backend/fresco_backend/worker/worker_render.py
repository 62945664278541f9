# SPDX-License-Identifier: Apache-2.0
"""How a worker renders a job: the pipeline with the worker's models, roots and previews."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from fresco_backend import failure, pipeline
from fresco_backend.events import Finished
from fresco_backend.models import weights
from fresco_backend.models.device import choose_device
from fresco_backend.render.job import Job
from fresco_backend.render.previews import Previews
from fresco_backend.roots import Roots
from fresco_backend.terminal.progress import PlainProgress
from fresco_backend.worker.job_events import job_event
from fresco_backend.worker.kept_models import KeptModels
from fresco_backend.worker.worker_words import Beat, Broken, Done, Halted, Render
from fresco_protocol.events import JobEvent
from fresco_protocol.job import Problem

Tell = Callable[[JobEvent], None]


class Renderer:
    """Renders jobs on one device, one after the other."""

    def __init__(self, roots: Roots) -> None:
        self.device = choose_device()
        self._roots = roots
        self._models = KeptModels(weights.load, self.device)

    def ended(self, order: Render, tell: Tell, halted: Callable[[], bool]) -> Done | Halted | Broken:
        """Render a job, and say how it ended. tell: takes its events. halted: whether it shall stop."""
        try:
            return Done() if self._is_whole(order, tell, halted) else Halted()
        except Exception as error:  # noqa: BLE001, the one place of the worker where every error of a job ends
            known = failure.translated(error, ["worker", order.job])
            sys.stderr.write(f"failed: {known}\n")
            self._models.clear()  # the error may have left them in any state, or there was no room for them
            return Broken(problem=Problem.of(known))

    def _is_whole(self, order: Render, tell: Tell, halted: Callable[[], bool]) -> bool:
        attendance = pipeline.Attendance(admit=self._admit, load=self._models.load, previews=Previews())
        events = pipeline.render(order.shot, attendance=attendance)
        with closing(events), PlainProgress(sys.stderr) as progress:
            for event in events:
                progress.show(event)
                tell(job_event(event, order.job))
                if halted() and not isinstance(event, Finished):
                    progress.say("stopped; what is finished is kept")
                    return False
        return True

    def relax(self) -> None:
        """While there is no job."""
        self._models.relax()

    def beat(self) -> Beat:
        """A sign of life, with the memory that the worker holds."""
        held, total = _memory(self.device)
        return Beat(model=self._models.newest, memory_bytes=held, memory_total=total)

    def _admit(self, job: Job) -> None:
        self._roots.check_job(job)
        self._models.expect(job)


def _memory(device: torch.device) -> tuple[int | None, int | None]:
    """Bytes that this process holds of the device, and all that it has; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    resident, machine = Path("/proc/self/statm"), Path("/proc/meminfo")
    if not (resident.is_file() and machine.is_file()):
        return None, None
    pages = int(resident.read_text(encoding="ascii").split()[1])
    kilobytes = int(machine.read_text(encoding="ascii").split(maxsplit=2)[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), kilobytes * 1024
