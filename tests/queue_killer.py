# SPDX-License-Identifier: Apache-2.0
"""A program that kills users of one queue: `queue_killer.py QUEUE LOG KILLS`.

Two processes at a time submit, claim, report and deliver, and write into LOG what the queue has told them is done. Half
of them are killed from outside at a random moment, half kill themselves before a random statement of SQL: most of these
stand in the middle of a change.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from fresco_backend.queue.jobs import JobQueue
from fresco_backend.queue.journal import Retention
from fresco_protocol.errors import Interrupted
from fresco_protocol.events import Advanced
from fresco_protocol.job import Stage
from fresco_protocol.shot import Delivery, Look, Plate, Shot

SHOT = Shot(plate=Plate(sequence="/p.####.exr"), look=Look(prompt="ink"), delivery=Delivery(sequence="/o.####.exr"))


def opened(path: Path) -> JobQueue:
    """The queue with all its events, so that gaps are seen."""
    return JobQueue(path, retention=Retention(passing_events=10**6, detailed=10**6))


class Life:
    """A process that uses the queue until it is killed. statements: after which it kills itself; 0 is never."""

    def __init__(self, path: Path, log: int, name: str, statements: int) -> None:
        self.queue, self.log, self.name = opened(path), log, name
        self.choice = random.Random(name)
        if statements:
            self.left = statements
            self.queue._database._connection.set_trace_callback(self.count)

    def count(self, _statement: str) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def say(self, *words: object) -> None:
        os.write(self.log, (" ".join(map(str, words)) + "\n").encode())

    def live(self) -> None:
        number = 0
        while True:
            time.sleep(0.002)  # the other one, and who recovers, come to their turn
            number += 1
            if self.choice.random() < 0.7:
                key = f"{self.name}-{number}"
                self.say("submitted", key, self.queue.submit(SHOT, key=key).status.id)
            try:
                self.work()
            except Interrupted:
                self.say("interrupted", self.name)

    def work(self) -> None:
        claim = self.queue.claim(self.name, "cpu")
        if claim is None:
            return
        self.say("claimed", claim.job, claim.number)
        step = Advanced(number=0, time=0, job=claim.job, stage=Stage.KEYFRAMES, done=1, total=20)
        self.queue.report(claim, [step] * self.choice.randrange(4))
        self.queue.journal.append_log(claim.job, "a line\n")
        if self.choice.random() < 0.2:
            self.queue.give_back(claim)
            return
        self.queue.deliver(claim)
        self.say("delivered", claim.job)


def born(path: Path, log: int, name: str, statements: int) -> int:
    """The process id of a new life."""
    child = os.fork()
    if child == 0:
        try:
            Life(path, log, name, statements).live()
        except BaseException as error:
            os.write(log, f"broken {name} {error!r}\n".encode())
            raise
        finally:
            os._exit(1)
    return child


def main(path: Path, log: int, kills: int) -> None:
    """Give birth and kill, and after each kill take the dead one's job from it."""
    choice = random.Random(7)
    opened(path).close()
    living = {"w0": (born(path, log, "w0", 0), 0), "w1": (born(path, log, "w1", 20), 20)}
    for number in range(2, 2 + kills):
        child, statements = living.pop(choice.choice(sorted(living)))
        if not statements:
            time.sleep(choice.uniform(0.005, 0.04))
            os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        with opened(path) as queue:
            queue.recover(alive=set(living))
        statements = choice.choice((0, choice.randrange(1, 80)))
        living[f"w{number}"] = born(path, log, f"w{number}", statements), statements
    for child, _ in living.values():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    assert not {"torch", "numpy", "cv2"} & set(sys.modules), "the queue is light"
    main(Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT), int(sys.argv[3]))
