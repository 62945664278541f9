# SPDX-License-Identifier: Apache-2.0
"""Makes the documentation's pictures of a terminal: runs the commands of the guides, and draws what they said.

`docs/make_terminal.py [SESSION ...]`; sessions: still, remote. The box of the second is this machine with a folder of
its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parent
FRESCO = (sys.executable, "-m", "fresco_backend.cli")
PAPER, INK, PROMPT = (28, 28, 28), (230, 230, 230), (242, 166, 90)
SIZE, LEADING, MARGIN, COLUMNS = 15, 21, 16, 104
FRAMES = range(1001, 1006)


def ran(words: Sequence[str], folder: Path, **environment: str) -> tuple[str, list[str]]:
    """A command as somebody types it, and the lines that it says. Raises CalledProcessError."""
    shell = {**os.environ, "TERM": "dumb", "COLUMNS": str(COLUMNS), **environment}
    done = subprocess.run([*FRESCO, *words], cwd=folder, env=shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=True)
    typed = " ".join(f'"{word}"' if " " in word else word for word in ["fresco", *words])
    return typed, done.stdout.replace(str(folder), "~").splitlines()


def draw(session: Sequence[tuple[str, list[str]]], name: str) -> None:
    """Draw commands with what they said as a picture of the documentation."""
    font = ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"), SIZE)
    lines = [(text, colour) for typed, said in session
             for text, colour in [(f"$ {typed}", PROMPT), *((line, INK) for line in said), ("", INK)]][:-1]
    width = round(font.getlength("m" * min(COLUMNS, max(len(text) for text, _ in lines))))
    picture = Image.new("RGB", (width + 2 * MARGIN, LEADING * len(lines) + 2 * MARGIN), PAPER)
    pen = ImageDraw.Draw(picture)
    for place, (text, colour) in enumerate(lines):
        shown = text if len(text) <= COLUMNS else f"{text[:COLUMNS - 1]}…"
        pen.text((MARGIN, MARGIN + LEADING * place), shown, fill=colour, font=font)
    path = DOCS / "images" / "terminal" / f"{name}.webp"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, lossless=True, method=6)


def demo_in(folder: Path) -> None:
    """A shot of a few frames of the demo, as an artist has it."""
    (folder / "plate").mkdir()
    for number in FRAMES:
        (folder / "plate" / f"boat.{number}.exr").symlink_to(DOCS.parent / "demo" / "plate" / f"boat.{number}.exr")
    words = ["render", "plate/boat.####.exr", "-o", "out/look.####.exr", "--prompt", "a watercolour painting of a boat",
             "--save-shot", "shot.json", "--dry-run"]  # fmt: skip
    ran(words, folder)


def still(folder: Path) -> None:
    """One frame, to judge the look."""
    demo_in(folder)
    draw([ran(["render", "shot.json", "--still", "1003"], folder)], "still")


def remote(folder: Path) -> None:
    """A plate goes to a box that shares no disk, and the delivery comes back."""
    artist, box = folder / "artist", folder / "box"
    artist.mkdir()
    box.mkdir()
    demo_in(artist)
    with serving(box) as connection:
        submitted = ran(["submit", "shot.json", "--upload", "--watch"], artist, FRESCO_CONNECTION=connection)
        job = ran(["jobs"], artist, FRESCO_CONNECTION=connection)[1][-1].split()[0]
        fetched = ran(["download", job, "-o", "out"], artist, FRESCO_CONNECTION=connection)
        listed = ("ls out", sorted(path.name for path in (artist / "out").iterdir()))
        draw([submitted, fetched, listed], "remote")


@contextmanager
def serving(box: Path) -> Iterator[str]:
    """A server in a folder; gives its connection file."""
    places = {"FRESCO_CONNECTION": str(box / "connection.json"), "FRESCO_QUEUE": str(box / "queue.sqlite")}
    process = subprocess.Popen([*FRESCO, "serve", "--root", str(box)], env={**os.environ, **places},
                               stderr=subprocess.DEVNULL)
    try:
        while not Path(places["FRESCO_CONNECTION"]).exists():
            time.sleep(0.1)
        yield places["FRESCO_CONNECTION"]
    finally:
        process.terminate()
        process.wait()


SESSIONS = {"still": still, "remote": remote}

if __name__ == "__main__":
    for name in sys.argv[1:] or SESSIONS:
        with tempfile.TemporaryDirectory(prefix="fresco-docs-") as made:
            SESSIONS[name](Path(made).resolve())
