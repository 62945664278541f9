# SPDX-License-Identifier: Apache-2.0
"""`fresco doctor`: what this machine has of what a render needs, one line a finding, and what to do where it lacks."""
from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from fresco_backend import settings
from fresco_backend.commands.finding import Concern, Finding, Verdict
from fresco_backend.commands.server_checks import SERVER_CHECKS
from fresco_backend.terminal.plan_text import bytes_text, counted
from fresco_protocol.errors import (
    ColorError,
    FrescoError,
    InputError,
    OutputDenied,
    UsageError,
    WeightsError,
    WeightsRefused,
)

LEAST_MEMORY = 4 * 2**30  # bytes; the demo shot's peak, and room for the system
LEAST_SCRATCH = 2 * 2**30
LIBRARIES = {"torch": "torch", "diffusers": "diffusers", "transformers": "transformers", "safetensors": "safetensors",
             "numpy": "numpy", "cv2": "opencv-python-headless", "OpenImageIO": "OpenImageIO", "av": "av",
             "fileseq": "fileseq", "rich": "rich", "zmq": "pyzmq"}
IMAGE_FORMATS = ("openexr", "tiff", "png", "jpeg")
MOVIE_DECODERS = ("h264", "hevc", "prores", "dnxhd", "mjpeg")
MOVIE_ENCODER = "libx264"
LINE = 100  # columns of a line
REINSTALL = "Install Fresco again, as its README says."


def diagnose(*, as_json: bool) -> int:
    """Runs every check and prints the findings on stdout; gives 0, or the exit code of the first failure."""
    found = []
    for finding in findings():
        found.append(finding)
        if not as_json:
            sys.stdout.write(_line(finding))
            sys.stdout.flush()
    if as_json:
        sys.stdout.write(json.dumps([finding.to_json() for finding in found]) + "\n")
    return next((finding.exit_code for finding in found if finding.verdict is Verdict.FAIL), 0)


def findings() -> Iterator[Finding]:
    """The findings of all checks, in an order in which an earlier one explains a later one."""
    for name, check in CHECKS.items():
        yield examine(name, check)


def examine(name: str, check: Callable[[], str | Concern]) -> Finding:
    """What a check found: its text, its concern, or the error that it raised."""
    try:
        found = check()
    except FrescoError as error:
        place = f" ({error.where})" if error.where else ""
        return Finding(name=name, verdict=Verdict.FAIL, text=f"{error.what}{place}", remedy=error.remedy,
                       exit_code=error.exit_code)
    except (ImportError, OSError, RuntimeError) as error:  # a native library that does not load says so in three ways
        return Finding(name=name, verdict=Verdict.FAIL, text=f"{type(error).__name__}: {error}", remedy=REINSTALL,
                       exit_code=FrescoError.exit_code)
    if isinstance(found, Concern):
        return Finding(name=name, verdict=Verdict.WARN, text=found.text, remedy=found.remedy)
    return Finding(name=name, verdict=Verdict.OK, text=found)


def _line(finding: Finding) -> str:
    head = f"{finding.verdict.value:<4}  {finding.name:<10}  "
    lines = [textwrap.fill(text, LINE, initial_indent=begin, subsequent_indent=" " * len(head), break_long_words=False,
                           break_on_hyphens=False)
             for text, begin in ((finding.text, head), (finding.remedy, " " * len(head))) if text]
    return "\n".join(lines) + "\n"


def _python() -> str:
    if sys.maxsize < 2**32:
        raise UsageError("Python of 32 bit", remedy="Install a 64-bit Python: torch has no other.")
    return f"{platform.python_version()}, {platform.system()} {platform.machine()}"


def _libraries() -> str | Concern:
    absent = []
    for module, package in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            absent.append(f"{package} ({error})")
    if absent:
        raise InputError(f"cannot be imported: {', '.join(absent)}", remedy=REINSTALL)
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in LIBRARIES.values())


def _device() -> str | Concern:
    import torch

    from fresco_backend.engine import fused
    from fresco_backend.models.device import choose_device, choose_dtype

    device = choose_device()
    dtype = choose_dtype(device)
    precision = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        return _cuda(f"{device}: {torch.cuda.get_device_name(device)}, {precision}", fused.problem(device, dtype))
    if device.type == "cpu" and settings.device_name() == "auto" and shutil.which("nvidia-smi"):
        return Concern(text=f"cpu, {precision}, although there is an NVIDIA GPU: torch {torch.__version__} does not "
                            "see it",
                       remedy="Install the build of torch that PyTorch's \"Get started\" page names for your driver.")
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    return f"{device}, {precision}{threads}"


def _cuda(name: str, problem: str | None) -> str | Concern:
    """A GPU, and why its keyframes take several times as long as they need to, if they do."""
    if problem is None:
        return f"{name}, fused feature optimisation"
    return Concern(
        text=f"{name}, but the feature optimisation is not fused: {problem}",
        remedy="Keyframes are as good, and take several times as long. On Linux Triton comes with PyTorch's builds for "
        "CUDA, and when it is first used it needs a C compiler and Python's headers (gcc and python3-dev).",
    )


def _memory() -> str | Concern:
    from fresco_backend.models.device import choose_device
    from fresco_backend.render.free_memory import free_memory

    device = choose_device()
    free = free_memory(device)
    if free is None:
        return "this system does not tell how much is free"
    if free < LEAST_MEMORY:
        return Concern(text=f"{bytes_text(free)} free on {device}",
                       remedy="Close other programs, or render with a smaller --working-size and --window.")
    return f"{bytes_text(free)} free on {device}"


def _images() -> str:
    import OpenImageIO as oiio  # noqa: N813, the name in its own manual

    known = oiio.get_string_attribute("format_list").split(",")
    lacking = [name for name in IMAGE_FORMATS if name not in known]
    if lacking:
        raise InputError(f"OpenImageIO {oiio.VERSION_STRING} lacks {', '.join(lacking)}", remedy=REINSTALL)
    return f"{', '.join(IMAGE_FORMATS)} by OpenImageIO {oiio.VERSION_STRING}"


def _movies() -> str | Concern:
    import av
    from av.codec.codec import Codec, UnknownCodecError

    lacking = []
    for name, mode in [*((name, "r") for name in MOVIE_DECODERS), (MOVIE_ENCODER, "w")]:
        try:
            Codec(name, mode)  # type: ignore[arg-type]
        except UnknownCodecError:
            lacking.append(name)
    if lacking:
        return Concern(text=f"PyAV {av.__version__} lacks {', '.join(lacking)}",
                       remedy="Movies of these codecs fail; image sequences work. Install PyAV's own wheel.")
    return f"reads {', '.join(MOVIE_DECODERS)}, writes H.264, by PyAV {av.__version__}"


def _color() -> str:
    config = os.environ.get("OCIO", "").strip()
    if not config:
        return "OCIO is not set; sRGB and linear Rec. 709 need no configuration"
    if not config.startswith("ocio://") and not Path(config).is_file():
        raise ColorError("OCIO names a file that does not exist", where=config,
                         remedy="Correct the variable OCIO, or unset it.")
    return f"OCIO is {config}"


def _scratch() -> str | Concern:
    folder = settings.scratch_folder()
    remedy = "Set FRESCO_SCRATCH to a folder that you may write to."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"fresco")
    except OSError as error:
        raise OutputDenied(f"the scratch folder cannot be written: {error.strerror}", where=folder,
                           remedy=remedy) from error
    free = shutil.disk_usage(folder).free
    if free < LEAST_SCRATCH:
        return Concern(text=f"{folder}, only {bytes_text(free)} free", remedy="Make room, or set FRESCO_SCRATCH.")
    return f"{folder}, {bytes_text(free)} free"


def _model() -> str:
    from fresco_backend.models import model_files, model_store

    try:
        inventory = model_store.check(model_store.EMBEDDED)
        inventory.require()
    except WeightsError as error:
        raise type(error)(error.what, where=error.where, remedy=REINSTALL) from error
    if not (inventory.place / model_files.CHECKSUMS).is_file():
        raise WeightsRefused(f"without {model_files.CHECKSUMS} nobody knows whether it is the released one",
                             where=inventory.place, remedy=REINSTALL)
    return f"embedded, {bytes_text(inventory.size)}, hashes as released"


CHECKS: dict[str, Callable[[], str | Concern]] = {
    "python": _python, "libraries": _libraries, "device": _device, "memory": _memory, "images": _images,
    "movies": _movies, "color": _color, "scratch": _scratch, "model": _model,
    **SERVER_CHECKS,
}
