# SPDX-License-Identifier: Apache-2.0
"""Who of several processes makes which product of a job, agreed on a shared disk alone: no server, no locks.

A claim is a file that only one process can create (O_EXCL, which NFS keeps since version 3). Its maker touches it while
it works. One that is no longer touched is superseded by the file of the next number, which again only one process can
create; so a claim is never taken from its maker by a deletion, and two processes never both believe that it is theirs.
Claims save work and protect nothing: products appear whole, by a rename, and any process of the job may make them. One
that has too little memory for a window makes smaller ones, and slightly other pixels; the record tells of it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from fresco_backend.events import Waited
from fresco_backend.files.deliveries import refused

BEAT = 15.0  # seconds between two touches
EXPIRY = 180.0  # seconds without a touch that this process has watched; NFS may show times that are a minute old
POLL = 1.0  # seconds between two looks at what another process makes
_ATTEMPTS = 3  # another process that finishes may remove the folder while a claim is made


class Claims:
    """The claims of this process in one folder. A context manager; at its end none is left.

    expiry: seconds. clock: monotonic seconds; how long a claim was untouched is watched here, because the clocks of
    two machines, and of their disk, may differ.
    """

    def __init__(self, folder: Path, *, expiry: float = EXPIRY, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._expiry, self._clock = expiry, clock
        self._mine: dict[str, Path] = {}
        self._seen: dict[Path, tuple[int, float]] = {}  # of others: the last touch, and when this process saw it first
        self._lively: set[Path] = set()  # of others: touched while this process watched
        self._stopped: threading.Event | None = None

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def take(self, product: str) -> bool:
        """Claim a product; False when another process works on it. The product may exist by now: look again after this.

        product: a name such as "window.3" or "frame.1001". Raises OutputError when the folder cannot be written.
        """
        newest = max(self._numbers(product), default=None)
        if newest is not None and not self._is_abandoned(self._path(product, newest)):
            return False
        path = self._path(product, 0 if newest is None else newest + 1)
        if not self._create(path):
            return False
        self._mine[product] = path
        if self._stopped is None:
            self._stopped = threading.Event()
            threading.Thread(target=self._beat, args=(self._stopped,), name="claims", daemon=True).start()
        return True

    def turn(self, product: str, is_there: Callable[[], bool]) -> Generator[Waited, None, bool]:
        """Whether this process shall make a product: waits until it may, or until another process has made it."""
        while not is_there():
            if not self.take(product):
                yield self.waited(product)
                time.sleep(POLL)
            elif is_there():  # made between the two looks
                self.release(product)
            else:
                return True
        return False

    def release(self, product: str) -> None:
        """Give a claim up, the product made or not; and what dead processes left of it. Not ours: nothing happens."""
        path = self._mine.pop(product, None)
        if path is None:
            return
        mine = int(path.suffix[1:])
        for number in self._numbers(product):
            if number <= mine:
                self._path(product, number).unlink(missing_ok=True)

    def others(self, kind: str = "") -> bool:
        """Whether another process that lives has a claim whose name begins so; this one's own may be closed by now."""
        paths = [path for path in self._paths() if path.name.startswith(kind) and path not in self._mine.values()]
        return any(path.exists() and not self._is_abandoned(path) for path in paths)

    def settled(self) -> Generator[Waited, None, bool]:
        """What `others` says, from certain knowledge: waits until each claim was touched, given up, or silent for too
        long. At first sight a process that died on another machine looks like one that lives."""
        while doubtful := [path for path in self._paths() if self._is_doubtful(path)]:
            yield Waited(product="shot", owner=_words(_read(doubtful[0])), seconds=self._left(doubtful[0]))
            time.sleep(POLL)
        return self.others()

    def owner(self, product: str) -> str:
        """Who works on a product, in words."""
        newest = max(self._numbers(product), default=0)
        return _words(_read(self._path(product, newest)))

    def waited(self, product: str) -> Waited:
        """What is said while another process makes a product."""
        newest = max(self._numbers(product), default=0)
        return Waited(product=product, owner=self.owner(product), seconds=self._left(self._path(product, newest)))

    def close(self) -> None:
        """Give all claims up."""
        if self._stopped is not None:
            self._stopped.set()
        for product in list(self._mine):
            self.release(product)
        with suppress(OSError):  # that is how the system says that others have claims there, or that there is no folder
            self.folder.rmdir()

    def _path(self, product: str, number: int) -> Path:
        return self.folder / f"{product}.{number}"

    def _numbers(self, product: str) -> list[int]:
        names = [path.name for path in self._paths()]
        endings = [name.removeprefix(f"{product}.") for name in names if name.startswith(f"{product}.")]
        return [int(ending) for ending in endings if ending.isdecimal()]

    def _paths(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except FileNotFoundError:  # not made yet; or whoever gave up the last claim removed it just now
            return []

    def _create(self, path: Path) -> bool:
        """Whether this process is the one that made the file."""
        owner = json.dumps({"host": _host(), "pid": os.getpid()})
        for _ in range(_ATTEMPTS):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                _write_new(path, owner)
            except FileExistsError:
                return False
            except FileNotFoundError:
                continue
            except OSError as error:
                raise refused(path, error) from error
            return True
        return False

    def _is_abandoned(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:  # opening makes NFS ask for the time of the last touch
                touched = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False  # it was given up just now
        if _is_dead(_read(path)):
            return True
        seen, since = self._seen.get(path, (None, 0.0))
        if seen != touched:
            self._seen[path] = (touched, self._clock())
            if seen is not None:
                self._lively.add(path)
            return False
        return self._clock() - since > self._expiry

    def _left(self, path: Path) -> float:
        """Seconds until the maker of a claim is taken for dead, should nobody touch it."""
        _, since = self._seen.get(path, (None, self._clock()))
        return max(0.0, self._expiry - (self._clock() - since))

    def _is_doubtful(self, path: Path) -> bool:
        """Whether nobody here can tell by now if the maker of a claim lives."""
        if path in self._mine.values() or self._is_abandoned(path) or not path.exists():
            return False
        return path not in self._lively and _pid_here(_read(path)) is None

    def _beat(self, stopped: threading.Event) -> None:
        while not stopped.wait(BEAT):
            for path in list(self._mine.values()):
                with suppress(OSError):  # superseded while this process slept, or the disk is away for a moment
                    os.utime(path)


def _write_new(path: Path, text: str) -> None:
    """Write a file that only one process can make. Raises OSError; then none is left that nobody would touch."""
    file = path.open("x", encoding="utf-8")
    try:
        with file:
            file.write(text)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _host() -> str:
    """The machine, and where Linux has them the namespace of process ids: containers of one host name share none."""
    space = Path("/proc/self/ns/pid")
    inode = f":{space.stat().st_ino}" if space.exists() else ""
    return f"{platform.node()}{inode}"


def _read(path: Path) -> dict[str, object] | None:
    """Who made a claim; None when it is gone, or its maker died before it said so."""
    try:
        owner = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and {"host", "pid"} <= owner.keys() else None


def _words(owner: dict[str, object] | None) -> str:
    return f"process {owner['pid']} on {str(owner['host']).partition(':')[0]}" if owner else "another process"


def _pid_here(owner: dict[str, object] | None) -> int | None:
    """The maker's process, where this machine can tell if it lives; what runs elsewhere is judged by its touches."""
    if owner is None or owner["host"] != _host() or not isinstance(owner["pid"], int) or sys.platform == "win32":
        return None  # Windows' kill ends what it asks after
    return owner["pid"]


def _is_dead(owner: dict[str, object] | None) -> bool:
    """Whether the maker was a process of this machine that has ended."""
    pid = _pid_here(owner)
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it runs, and belongs to somebody else
        return False
    return False
