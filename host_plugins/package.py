# SPDX-License-Identifier: Apache-2.0
"""Builds what people install: the extension for Blender and the archive for DaVinci Resolve.

    python host_plugins/package.py --out dist

Both carry fresco_protocol along and no compiled wheel. The same source gives the same bytes: entries are sorted and
have one date (SOURCE_DATE_EPOCH, else 1 January 1980). An archive is checked before it gets its name.
"""
from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROTOCOL = ROOT / "protocol" / "fresco_protocol"
HOSTS = {"blender": ROOT / "host_plugins" / "blender", "davinci": ROOT / "host_plugins" / "davinci"}
LEFT_OUT = {"__pycache__", "docs"}
SUFFIXES = {".py", ".toml", ".lua", ".json", ".txt", ".typed", ".md"}
EARLIEST = 315532800  # 1980-01-01, the first day that a zip can name
LONGEST_SENTENCE = 64  # Blender's limit
REQUIRED = ("schema_version", "id", "version", "name", "tagline", "maintainer", "type", "blender_version_min",
            "license")

Files = dict[str, bytes]


def blender_files() -> Files:
    """The extension: everything at the top, and the protocol as a package inside it.

    An extension may not put names of its own among the top-level modules, so absolute imports become relative ones.
    """
    own = {name: _relative(data, ".fresco_protocol") if name.endswith(".py") else data
           for name, data in _tree(HOSTS["blender"])}
    protocol = {f"fresco_protocol/{name}": _relative(data, ".") if name.endswith(".py") else data
                for name, data in _tree(PROTOCOL)}
    return {**own, **protocol, "fresco_protocol/LICENSE": (ROOT / "LICENSE").read_bytes()}


def davinci_files() -> Files:
    """The tree below Resolve's folder Fusion, as `fresco resolve install` makes it: menu entries, and the packages."""
    entries: Files = {}
    for name, data in _tree(HOSTS["davinci"] / "fresco_davinci"):
        places = [f"Modules/Fresco/fresco_davinci/{name}"]
        if name.startswith("scripts/"):
            places = [f"Scripts/{menu}/{Path(name).name}" for menu in ("Edit", "Utility")]
        entries.update(dict.fromkeys(places, data))
    protocol = {f"Modules/Fresco/fresco_protocol/{name}": data for name, data in _tree(PROTOCOL)}
    about = {"README.md": (HOSTS["davinci"] / "README.md").read_bytes(), "LICENSE": (ROOT / "LICENSE").read_bytes()}
    return {**entries, **protocol, **{f"Modules/Fresco/{name}": data for name, data in about.items()}}


def _tree(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not LEFT_OUT & set(name.parts) and (path.suffix in SUFFIXES or name.name == "LICENSE"):
            yield name.as_posix(), path.read_bytes().replace(b"\r\n", b"\n")


def _relative(source: bytes, package: str) -> bytes:
    """`from fresco_protocol.shot import Shot` -> `from .fresco_protocol.shot import Shot`, or `from .shot`."""
    def replaced(match: re.Match[str]) -> str:
        inner = match[2] or ""
        return f"{match[1]}from {package}{inner if package != '.' else inner[1:]} import"

    text = re.sub(r"^([ \t]*)from fresco_protocol((?:\.\w+)*) import", replaced, source.decode(), flags=re.MULTILINE)
    return text.encode()


def problems(host: str, files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with an archive, one sentence each."""
    sources = [(name, data) for name, data in files.items() if name.endswith(".py")]
    found = [sentence for name, data in sources for sentence in _of_source(host, name, data)]
    if host == "blender":
        found += _of_manifest(files)
    return found


def _of_source(host: str, name: str, data: bytes) -> Iterator[str]:
    try:
        module = ast.parse(data, filename=name, feature_version=(3, 9))
    except SyntaxError as error:
        yield f"{name}:{error.lineno} is not Python 3.9: {error.msg}"
        return
    inside = {"fresco_protocol", "fresco_davinci"} if host == "davinci" else {"bpy"}
    for imported in _absolute_imports(module):
        if imported not in sys.stdlib_module_names and imported not in inside:
            yield f"{name} imports {imported}: an archive carries the standard library's and its own modules only"


def _absolute_imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def _of_manifest(files: Mapping[str, bytes]) -> Iterator[str]:
    """What Blender refuses in a manifest (its own check runs in the tests)."""
    import tomllib

    if not {"blender_manifest.toml", "__init__.py", "LICENSE"} <= files.keys():
        yield "the manifest, __init__.py or LICENSE is missing"
        return
    manifest = tomllib.loads(files["blender_manifest.toml"].decode())
    yield from (f"blender_manifest.toml lacks {key}" for key in REQUIRED if not manifest.get(key))
    for key, text in {"tagline": manifest.get("tagline", ""), **manifest.get("permissions", {})}.items():
        if len(text) > LONGEST_SENTENCE or text.endswith((".", "!", "?")):
            yield f"blender_manifest.toml: {key} is one sentence of {LONGEST_SENTENCE} characters without a full stop"
    if manifest.get("wheels"):
        yield "blender_manifest.toml names wheels: they tie the extension to one Python"


def version() -> str:
    """The version of both archives: the one that Blender's manifest states."""
    text = (HOSTS["blender"] / "blender_manifest.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise SystemExit("blender_manifest.toml states no version")
    return match[1]


def build(host: str, out: Path) -> Path:
    """Writes the archive of a host and gives its path. Raises SystemExit with all that is wrong with it."""
    files = blender_files() if host == "blender" else davinci_files()
    wrong = problems(host, files)
    if wrong:
        raise SystemExit("\n".join([f"the archive for {host} is not built:", *wrong]))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"fresco-{host}-{version()}.zip"
    part = path.with_suffix(".part")
    part.write_bytes(b"")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            archive.writestr(_entry(name), files[name])
    part.replace(path)
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    seconds = max(EARLIEST, int(os.environ.get("SOURCE_DATE_EPOCH", EARLIEST)))
    entry = zipfile.ZipInfo(name, time.gmtime(seconds)[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, on every system
    entry.external_attr = 0o644 << 16
    return entry


def main(words: Sequence[str] | None = None) -> int:
    """Builds and names what it built."""
    parser = argparse.ArgumentParser(description="Builds the archives that people install into their hosts.")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder of the archives (default: dist)")
    parser.add_argument("--host", choices=sorted(HOSTS), help="only this one")
    arguments = parser.parse_args(words)
    for host in [arguments.host] if arguments.host else sorted(HOSTS):
        sys.stdout.write(f"{build(host, arguments.out)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
