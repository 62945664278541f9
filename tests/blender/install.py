# SPDX-License-Identifier: GPL-3.0-or-later
"""Gets Blender as Python modules for the tests, each version in an environment of its own below .bpy.

    python tests/blender/install.py             the oldest and the newest that this machine's Pythons can run
    python tests/blender/install.py all         all of them: 400 MB to fetch and 1 GB of disk each
    python tests/blender/install.py 4.5.15      this one

A module runs on one Python only: 4.2 to 5.0 on 3.11, 5.1 and later on 3.13. Where that Python is missing this script
says how to get it, and goes on with the newest Blender that it can install.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PYTHON_OF = {"4.2.23": "3.11", "4.5.15": "3.11", "5.0.1": "3.11", "5.2.3": "3.13"}
OLDEST = "4.2.23"
FOLDER = Path(__file__).parents[2] / ".bpy"
ADVICE = "python{0} is not here. Get it by one of: apt-get install python{0}-venv (where the distribution has it), " \
         "pyenv install {0}, uv python install {0}, or an installer from python.org."


def python_of(version: str) -> Path:
    """The Python of an installed Blender; it exists once the installation is whole."""
    place = FOLDER / version
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python") if (place / ".ready").exists() else \
        place / "missing"


def installed() -> list[str]:
    """The versions that are ready, the oldest first."""
    return [version for version in PYTHON_OF if python_of(version).exists()]


def found_python(minor: str) -> str | None:
    """An interpreter of this version of Python: on the path, of pyenv, of uv."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    places = (f".pyenv/versions/{minor}.*/bin/python{minor}",
              f".local/share/uv/python/cpython-{minor}.*/bin/python{minor}")
    candidates = [shutil.which(f"python{minor}"), sys.executable if here == minor else None,
                  *(str(path) for place in places for path in sorted(Path.home().glob(place)))]
    return next((path for path in candidates if path and _works(path, minor)), None)


def _works(path: str, minor: str) -> bool:
    """A shim of pyenv may lie there and refuse."""
    program = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == minor


def chosen(words: Sequence[str]) -> list[str]:
    """The versions that the command line asks for."""
    if "all" in words:
        return list(PYTHON_OF)
    if words:
        return list(words)
    newest = next((version for version in reversed(PYTHON_OF) if found_python(PYTHON_OF[version])), OLDEST)
    return [OLDEST, newest] if newest != OLDEST else [OLDEST]


def install(version: str) -> None:
    """Makes the environment of a version. Raises SystemExit when its Python is missing."""
    if python_of(version).exists():
        return
    interpreter = found_python(PYTHON_OF[version])
    if interpreter is None:
        raise SystemExit(ADVICE.format(PYTHON_OF[version]))
    place = FOLDER / version
    subprocess.run([interpreter, "-m", "venv", "--clear", str(place)], check=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check",
                    f"bpy=={version}"], check=True)
    (place / ".ready").touch()


def main(words: Sequence[str]) -> int:
    """Installs and names what is there."""
    for version in chosen(words):
        install(version)
        sys.stdout.write(f"Blender {version}: {python_of(version)}\n")
    for version, minor in PYTHON_OF.items():
        if found_python(minor) is None:
            sys.stdout.write(f"Blender {version} is left out: {ADVICE.format(minor)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
