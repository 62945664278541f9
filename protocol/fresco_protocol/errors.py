# SPDX-License-Identifier: Apache-2.0
"""The exceptions of Fresco: each says what happened, where, and what to do next.

FrescoError                  bug                 1
├── UsageError               usage               2
│   ├── ShotError            shot-invalid        2   names the path in the shot document
│   ├── JobUnknown           job-unknown         2
│   ├── JobRefused           job-refused         2   its state does not allow what was asked
│   └── PathRefused          path-refused        2   outside of the server's declared roots
├── InputError               input               3
│   ├── PlateMissing         plate-missing       3
│   ├── FrameGap             frame-gap           3
│   ├── FrameSize            frame-size          3
│   ├── FrameUnreadable      frame-unreadable    3
│   ├── RangeOutside         range-outside       3
│   └── MatteError           matte               3
├── OutputError              output              4
│   ├── OutputDenied         output-denied       4
│   ├── OutputPattern        output-pattern      4
│   ├── OutputIsPlate        output-is-plate     4
│   └── DiskFull             disk-full           4
├── PartialDelivery          partial-delivery    5
├── ColorError               color               6
├── WeightsError             weights             7
│   ├── WeightsMissing       weights-missing     7
│   ├── WeightsRefused       weights-refused     7   wrong hash, unsafe format
│   └── WeightsUnsupported   weights-unsupported 7   readable, but not an architecture that Fresco can drive
├── NodeDiffers              node-differs        8   would make other pixels than the node that planned the job
├── DeviceMemory             device-memory      12
├── WorkerDied               worker-died        70   a job's workers died again and again
├── HostRefused              host-refused       71   the application that Fresco works in did not do what it was asked
├── ServerError              server             69
│   ├── ServerMissing        server-missing     69   nothing listens
│   ├── ServerSilent         server-silent      69   no answer in time
│   └── ServerLost           server-lost        69   the connection broke
├── Busy                     busy               75   temporary: queue it again
├── ProtocolError            protocol           76
│   ├── MessageMalformed     message-malformed  76
│   ├── MessageRefused       message-refused    76   wrong signature, replayed, too old
│   ├── ChecksumWrong        checksum           76   a file or a part of one changed on the way
│   └── VersionMismatch      version            76   says which side to upgrade
└── Interrupted              interrupted       130   143 when it was ended by SIGTERM; the shot resumes

The second column is `code`: stable, for programs. The third is `exit_code`: what the shell sees.
"""
from __future__ import annotations


class FrescoError(Exception):
    """A failure that a person can act on; raised bare, it is a bug of Fresco.

    what: one clause without a full stop. where: file, frame or place in a document. remedy: what to do next, in whole
    sentences; the last one has no full stop where it ends in what is copied, such as a command.
    """

    code: str = "bug"
    exit_code: int = 1

    def __init__(self, what: str, *, where: object | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy

    @classmethod
    def told(cls, what: str, where: str | None, remedy: str | None) -> FrescoError:
        """The error that another process raised, from its words."""
        return cls(what, where=where, remedy=remedy)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f". {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{advice}"


class UsageError(FrescoError):
    """The command or the call does not make sense as it stands."""

    code = "usage"
    exit_code = 2


class ShotError(UsageError):
    """A shot document holds something that it must not hold.

    path: place in the document, such as "look.controls[0].strength". found: what stands there. allowed: what may.
    """

    code = "shot-invalid"

    def __init__(self, path: str, found: str, allowed: str) -> None:
        super().__init__(f"found {found}", where=path or "document", remedy=f"Allowed: {allowed}")
        self.path = path
        self.found = found
        self.allowed = allowed

    @classmethod
    def told(cls, what: str, where: str | None, remedy: str | None) -> ShotError:
        """The error that another process raised, from its words."""
        return cls(where or "", what.removeprefix("found "), (remedy or "").removeprefix("Allowed: "))

    def inside(self, outer: str) -> ShotError:
        """The same error, seen from the document that holds this one at `outer`."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        return type(self)(f"{outer}{joint}{self.path}", self.found, self.allowed)

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; allowed: {self.allowed}"

    def __reduce__(self) -> tuple[type[ShotError], tuple[str, str, str]]:
        return type(self), (self.path, self.found, self.allowed)


class JobUnknown(UsageError):
    """The server has no job of this id."""

    code = "job-unknown"


class JobRefused(UsageError):
    """The job's state does not allow what was asked of it."""

    code = "job-refused"


class PathRefused(UsageError):
    """A path leads out of the folders that the server may read and write."""

    code = "path-refused"


class InputError(FrescoError):
    """Something that the shot reads cannot be used."""

    code = "input"
    exit_code = 3


class PlateMissing(InputError):
    """No file of the plate was found."""

    code = "plate-missing"


class FrameGap(InputError):
    """Frames are missing inside the range, and the policy is to stop."""

    code = "frame-gap"


class FrameSize(InputError):
    """A frame is of another size than the frames before it."""

    code = "frame-size"


class FrameUnreadable(InputError):
    """A frame exists and cannot be decoded."""

    code = "frame-unreadable"


class RangeOutside(InputError):
    """The requested frames lie outside the plate."""

    code = "range-outside"


class MatteError(InputError):
    """The matte is missing, of another size, or lacks the channel."""

    code = "matte"


class OutputError(FrescoError):
    """The delivery cannot be written."""

    code = "output"
    exit_code = 4


class OutputDenied(OutputError):
    """The folder of the delivery refuses to be written."""

    code = "output-denied"


class OutputPattern(OutputError):
    """The delivery's path has no frame field, or names a format that cannot be written."""

    code = "output-pattern"


class OutputIsPlate(OutputError):
    """The delivery would overwrite the plate."""

    code = "output-is-plate"


class DiskFull(OutputError):
    """The disk ran full while a frame was written."""

    code = "disk-full"


class PartialDelivery(FrescoError):
    """Some frames were delivered and some failed."""

    code = "partial-delivery"
    exit_code = 5


class ColorError(FrescoError):
    """A colour space or colour configuration is unknown or cannot be loaded."""

    code = "color"
    exit_code = 6


class WeightsError(FrescoError):
    """The weights of a model cannot be used."""

    code = "weights"
    exit_code = 7


class WeightsMissing(WeightsError):
    """The weights were not found; the remedy says how to get them."""

    code = "weights-missing"


class WeightsRefused(WeightsError):
    """The weights are damaged, of the wrong hash, or in a format that can run code."""

    code = "weights-refused"


class WeightsUnsupported(WeightsError):
    """The weights can be read, and are no architecture that Fresco can drive, or overflow on this device."""

    code = "weights-unsupported"


class NodeDiffers(FrescoError):
    """This machine has other versions, weights or files than the one that planned the job: pixels would not match."""

    code = "node-differs"
    exit_code = 8


class DeviceMemory(FrescoError):
    """The device ran out of memory."""

    code = "device-memory"
    exit_code = 12


class WorkerDied(FrescoError):
    """The worker of a job died or fell silent more often than it is resumed."""

    code = "worker-died"
    exit_code = 70


class HostRefused(FrescoError):
    """The editing application did not do what it was asked."""

    code = "host-refused"
    exit_code = 71


class ServerError(FrescoError):
    """The server cannot be reached."""

    code = "server"
    exit_code = 69


class ServerMissing(ServerError):
    """No server runs where the client looked."""

    code = "server-missing"


class ServerSilent(ServerError):
    """The server did not answer in time: it hangs, or does not know the token."""

    code = "server-silent"


class ServerLost(ServerError):
    """The connection to the server broke."""

    code = "server-lost"


class Busy(FrescoError):
    """The server or the device is taken; the same command succeeds later."""

    code = "busy"
    exit_code = 75


class ProtocolError(FrescoError):
    """What arrived is not the language of Fresco.

    request: id of the well-signed request that was at fault, for the reply; None if there is nobody to answer.
    """

    code = "protocol"
    exit_code = 76
    request: str | None = None


class MessageMalformed(ProtocolError):
    """A message breaks the form or the limits of the wire."""

    code = "message-malformed"


class MessageRefused(ProtocolError):
    """A message is not signed with the token, was sent before, or is too old."""

    code = "message-refused"


class ChecksumWrong(ProtocolError):
    """A file, or a part of one, is not the one whose checksum was told."""

    code = "checksum"


class VersionMismatch(ProtocolError):
    """The two sides speak different versions; the remedy says which one to upgrade."""

    code = "version"


class Interrupted(FrescoError):
    """The render was stopped from outside; only whole files were left, and it resumes."""

    code = "interrupted"
    exit_code = 130

    def __init__(self, what: str, *, where: object | None = None, remedy: str | None = None,
                 terminated: bool = False) -> None:
        """terminated: ended by SIGTERM (a farm), not by SIGINT (Ctrl-C)."""
        super().__init__(what, where=where, remedy=remedy)
        self.exit_code = 143 if terminated else 130
