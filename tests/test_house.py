# SPDX-License-Identifier: Apache-2.0
"""The law of the house, as backend/README.md gives it, held over every file."""
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "protocol" / "fresco_protocol", ROOT / "backend" / "fresco_backend")
HOUSE = sorted(path for room in ("protocol", "backend", "host_plugins", "tests", "demo", "benchmarks")
               for path in (ROOT / room).rglob("*.py"))
ENGINE = frozenset({
    "__future__", "collections", "contextlib", "dataclasses", "enum", "functools", "itertools", "math", "typing",
    "torch", "triton", "numpy", "diffusers", "fresco_backend.engine",
})
STANDARD = frozenset(sys.stdlib_module_names)
SUBJECTLESS = frozenset({"utils", "util", "helpers", "helper", "common", "base", "misc", "manager", "tools"})
LIGHT = ("cli", "server.server", "settings")
# Rooms from the ground up; a file imports from its own and from those below.
STOREYS = ("settings interruption failure events path_mapping kept_memory", "engine", "files", "models", "guides",
           "pixels", "terminal", "render", "roots", "pipeline", "arguments", "farm", "report", "otio", "queue",
           "worker", "server", "commands", "cli", "embedded")
STOREY = {room: storey for storey, rooms in enumerate(STOREYS) for room in rooms.split()}
ABOVE = frozenset({("models/weights.py", "embedded")})  # the autoencoder of the embedded model
# A remedy ends in a full stop, unless it ends in what is copied: a word that no sentence has (a path, a number, a name
# in capitals), the value of an option; and never behind a command or an option that follows a colon.
WORD = re.compile(r"(?:--)?[A-Za-z]?[a-z'-]+|I|GPU|CPU|JSON|EXR")
COPIED = re.compile(r""": ["(]?(?:fresco |pip |hf |openjd |FRESCO --)[^.,;]*$|: --[^.,;]*$""")
VALUE = re.compile(r" --[a-z-]+ [a-z]+$")
UNPLANNED = ("embedded",)  # its folder stands in the plan; its files stand in its model card


def violations(name: str, source: str) -> list[str]:
    """What a file, named by its path from the root, does against the law; one sentence each."""
    module = ast.parse(source)
    found = [*_bad_imports(name, module), *_bad_handlers(name, module), *_bad_words(name, module),
             *_bad_remedies(name, module)]
    if "SPDX-License-Identifier: " not in "\n".join(source.splitlines()[:2]) and source.strip():
        found.append(f"{name} does not begin with its SPDX-License-Identifier")
    if Path(name).stem in SUBJECTLESS:
        found.append(f"{name} is named after no subject: name it by a noun of the field")
    return found


def _imports(name: str, module: ast.AST) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it; relative ones made absolute."""
    package = [part for part in Path(name).parent.parts if part not in ("protocol", "backend")]
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = package[:len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*outer, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _among(imported: str, rooms: frozenset[str]) -> bool:
    return any(imported == room or imported.startswith(f"{room}.") for room in rooms)


def _storey(room: str) -> int:
    """How high a room, or a file that is none's, stands; the package itself is the ground."""
    return STOREY.get(room.removesuffix(".py"), 0)


def _bad_imports(name: str, module: ast.AST) -> list[str]:
    found = []
    for imported in _imports(name, module):
        short, room = "/".join(Path(name).parts[2:]), imported.removeprefix("fresco_backend.").split(".")[0]
        if name.startswith("backend/fresco_backend/engine/") and not _among(imported, ENGINE):
            found.append(f"{short} imports {room}: engine is pure")
        if imported.startswith("fresco_backend.") and short.partition("/")[0] != room and (short, room) not in ABOVE \
                and name.startswith("backend/fresco_backend/") and _storey(room) > _storey(short.partition("/")[0]):
            found.append(f"{short} imports {room}: that room stands above it")
        if name.startswith("protocol/") and not _among(imported, STANDARD | {"fresco_protocol"}):
            found.append(f"{short} imports {room}: protocol is standard library only")
        if name.startswith("host_plugins/") and _among(imported, frozenset({"fresco_backend"})):
            found.append(f"{name} imports fresco_backend: hosts speak the protocol only")
        if name.startswith("backend/") and _among(imported, frozenset({"tests", "tiny", "host_plugins", "benchmarks"})):
            found.append(f"{short} imports {room}: the studio stands without it")
    return found


def _bad_handlers(name: str, module: ast.AST) -> list[str]:
    return [f"{name}:{node.lineno} has a bare except: name what can go wrong"
            for node in ast.walk(module) if isinstance(node, ast.ExceptHandler) and node.type is None]


def _bad_words(name: str, module: ast.AST) -> list[str]:
    banned = "inference" + "_mode"
    return [f"{name}:{node.lineno} uses {banned}: the optimisation needs gradients inside, take no_grad"
            for node in ast.walk(module) if isinstance(node, (ast.Attribute, ast.Name, ast.alias))
            and banned in (getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "name", None))]


def _bad_remedies(name: str, module: ast.AST) -> list[str]:
    """The rule of `FrescoError`: a remedy is whole sentences, and only what is copied stands without a stop."""
    remedies = [keyword.value for node in ast.walk(module) if isinstance(node, ast.Call)
                for keyword in node.keywords if keyword.arg == "remedy"]
    texts = [(remedy.lineno, text.rstrip()) for remedy in remedies for text in _endings(remedy)]
    if name.startswith("tests/"):
        return []
    return [f'{name}:{line} has a remedy that ends in "{text[-30:]}": a sentence has a full stop, a command has none'
            for line, text in texts if text and text[-1] not in "?!" and _is_amiss(text)]


def _endings(remedy: ast.expr) -> Iterator[str]:
    """The texts of an expression that end in words of its own; what it is given in braces is FRESCO here."""
    if isinstance(remedy, ast.Constant) and isinstance(remedy.value, str):
        yield remedy.value
    elif isinstance(remedy, ast.JoinedStr) and remedy.values and isinstance(remedy.values[-1], ast.Constant):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "FRESCO" for part in remedy.values)
    elif isinstance(remedy, ast.BinOp):
        yield from _endings(remedy.right)
    elif isinstance(remedy, (ast.IfExp, ast.BoolOp)):
        for part in remedy.values if isinstance(remedy, ast.BoolOp) else (remedy.body, remedy.orelse):
            yield from _endings(part)


def _is_amiss(text: str) -> bool:
    """Whether a full stop is missing at the end of a text, or spoils what is copied."""
    copied = COPIED.search(text.rstrip(".")) is not None and "FRESCO" not in text.split()[-1]
    if text.endswith("."):
        return copied
    return WORD.fullmatch(text.split()[-1].strip("()")) is not None and not copied and not VALUE.search(text)


@pytest.mark.parametrize("path", HOUSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_keeps_the_law(path: Path) -> None:
    found = violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


SPDX = "# SPDX-License-Identifier: Apache-2.0\n"
FLOW = "backend/fresco_backend/engine/flow.py"
COLOR = "backend/fresco_backend/pixels/color.py"


@pytest.mark.parametrize(("name", "source", "sentence"), [
    (FLOW, "from fresco_backend import settings", "engine/flow.py imports settings: engine is pure"),
    (FLOW, "from ..settings import scratch", "engine/flow.py imports settings: engine is pure"),
    (FLOW, "from .. import settings", "engine/flow.py imports settings: engine is pure"),
    (FLOW, "import os", "engine/flow.py imports os: engine is pure"),
    (FLOW, "def f():\n    from fresco_protocol.shot import Shot", "engine/flow.py imports fresco_protocol"),
    (COLOR, "from fresco_backend.render.job import Job", "pixels/color.py imports render: that room stands above it"),
    (COLOR, "from fresco_backend import pipeline", "pixels/color.py imports pipeline: that room stands above it"),
    (COLOR, "from tiny import tiny_unet", "color.py imports tiny"),
    (COLOR, "try:\n    pass\nexcept:\n    pass", "color.py:4 has a bare except"),
    (COLOR, "import torch\n@torch.inference_mode()\ndef f(): ...", "color.py:3 uses inference_mode"),
    (COLOR, "from torch import inference_mode", "color.py:2 uses inference_mode"),
    ("protocol/fresco_protocol/shot.py", "import numpy", "shot.py imports numpy: protocol is standard library only"),
    ("host_plugins/blender/panels.py", "import fresco_backend.pipeline", "hosts speak the protocol only"),
    ("backend/fresco_backend/utils.py", "", "named after no subject"),
    (COLOR, 'E("no", remedy="Do it")', 'has a remedy that ends in "Do it"'),
    (COLOR, 'E("no", remedy=f"{near}Do it" if near else f"See: {prog} --help")', 'ends in "FRESCODo it"'),
    (COLOR, 'E("no", remedy="They are there: fresco jobs.")', 'ends in "They are there: fresco jobs."'),
])
def test_the_law_speaks_in_sentences(name: str, source: str, sentence: str) -> None:
    found = violations(name, SPDX + source)
    assert len(found) == 1
    assert sentence in found[0]


def test_the_law_lets_good_files_pass() -> None:
    good = "from __future__ import annotations\nimport math\nimport torch.nn.functional as F\nfrom .flow import Flow\n"
    assert violations(FLOW, SPDX + good) == []
    told = "Do it.", "See: fresco jobs", "Take a.####.exr", "Give --rate 24", "Who?", "Choose --missing hold", f"{FLOW}"
    assert violations(COLOR, SPDX + "\n".join(f"E('no', remedy={text!r})" for text in told)) == []
    assert violations(FLOW, good) == [f"{FLOW} does not begin with its SPDX-License-Identifier"]


@pytest.mark.parametrize("path", sorted(PACKAGES[0].rglob("*.py")), ids=lambda path: path.name)
def test_the_protocol_is_written_for_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_every_room_has_its_storey() -> None:
    rooms = {path.stem for path in PACKAGES[1].iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(STOREY)


@pytest.mark.parametrize("name", LIGHT)
def test_light_rooms_start_without_torch(name: str) -> None:
    module = f"fresco_backend.{name}"
    heavy = "{'torch', 'diffusers', 'transformers', 'cv2'}"
    program = f"import sys; sys.path[:0] = {[str(package.parent) for package in PACKAGES]}; import {module}; " \
              f"print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stdout.split(), f"{name} imports {run.stdout.strip()}, itself or through others"


def planned() -> set[str]:
    """The files that the plan of backend/README.md shows below the two packages, as paths from the root."""
    plan = (ROOT / "backend" / "README.md").read_text(encoding="utf-8").split("## Plan")[1].split("```")[1]
    found, folders = set(), {}
    for branch, entry in re.findall(r"^([│ ]*[├└]── )([\w./]+)", plan, re.MULTILINE):
        depth = len(branch) // 4
        folders[depth] = entry.rstrip("/")
        path = "/".join(folders[level] for level in range(1, depth + 1))
        if path.endswith(".py"):
            found.add(path)
    return found


def test_every_file_stands_in_the_plan_and_every_file_of_the_plan_exists() -> None:
    files = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in package.rglob("*.py")
             if path.name != "__init__.py" and not set(UNPLANNED) & set(path.parts)}
    assert not files - planned(), f"not in the plan of backend/README.md: {sorted(files - planned())}"
    assert not planned() - files, f"in the plan of backend/README.md, but not in the house: {sorted(planned() - files)}"
