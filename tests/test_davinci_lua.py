# SPDX-License-Identifier: Apache-2.0
"""The Lua menu script, run by LuaJIT (as Resolve runs it) on the double, with a command that leaves its arguments."""
from __future__ import annotations

import fnmatch
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from davinci import Cut, edited
from lupa.luajit21 import LuaRuntime
from resolve_double import World
from resolve_pool import MediaPool
from resolve_timeline import Timeline

from fresco_protocol.shot import Shot

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "host_plugins" / "davinci" / "fresco_davinci" / "scripts" / "Fresco (OTIO).lua"
PROXY = """
return function(object, index, call)
    local function wrap(value)
        if type(value) ~= "userdata" then return value end
        return setmetatable({object = value}, {__index = function(self, name)
            if name:upper() == name then return name end
            return function(_, ...)
                local values = {...}
                for n, one in ipairs(values) do values[n] = type(one) == "table" and one.object or one end
                return wrap(call(value, name, unpack(values)))
            end
        end})
    end
    return wrap
end
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the command of this test is a shell script")


def lua_table(lua: Any, value: Any, wrap: Callable[[Any], Any]) -> Any:
    """A value of the double as Resolve's bridge hands it to Lua."""
    if isinstance(value, (list, tuple)):
        return lua.table_from([wrap(item) for item in value])
    if isinstance(value, dict):
        return lua.table_from({key: lua_table(lua, item, wrap) for key, item in value.items()})
    return value if value is None or isinstance(value, (str, int, float, bool)) else wrap(value)


def run(world: World, clock: int | None = None, *, windows: bool = False) -> list[str]:
    """What the script prints. clock: the time that it is told. windows: it believes so, and its command is not run."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    said: list[str] = []

    def call(thing: Any, name: str, *values: Any) -> Any:
        plain = [dict(value) if type(value).__name__ == "_LuaTable" else value for value in values]
        return lua_table(lua, getattr(thing, name)(*plain), wrap)

    wrap = lua.execute(PROXY)(None, None, call)
    lua.globals().resolve = wrap(world.resolve)
    lua.globals().print = said.append
    if windows:
        lua.execute('package.config = "\\\\" .. package.config:sub(2)')
        lua.globals().os.execute = lambda line: 1
    if clock is not None:
        lua.globals().os.time = lambda: clock
    lua.execute(SCRIPT.read_text(encoding="utf-8"))
    return said


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The free edition of 21.1, whose scripts are Lua alone, with a `fresco` that writes its arguments down."""
    world = World((21, 1), studio=False)
    edited(world, tmp_path, Cut(name="it's a shot.%04d.exr"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setattr(Timeline, "do_Export", exported, raising=False)
    monkeypatch.setattr(MediaPool, "do_ImportTimelineFromFile", imported, raising=False)
    (tmp_path / "bin").mkdir()
    command(tmp_path, 'printf "%s\\n" "$@" >> "$HOME/arguments"; cp "$2" "$4"')
    return world


def command(folder: Path, body: str) -> None:
    """A `fresco` on the search path."""
    (folder / "bin" / "fresco").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "bin" / "fresco").chmod(0o755)


def exported(timeline: Timeline, path: str, kind: str, more: str) -> bool:
    """What Resolve does."""
    Path(path).write_text(f"{timeline.name} as {kind}, {more}")
    return True


def imported(pool: MediaPool, path: str, options: dict[str, Any]) -> Timeline | None:
    """What Resolve does: None when it does not like the file."""
    text = Path(path).read_text()
    return pool.do_CreateEmptyTimeline(str(options["timelineName"])) if "EXPORT_OTIO" in text else None


def test_a_marker_is_an_order(world: World, tmp_path: Path) -> None:
    prompt = "a \"wet\" watercolour,\n'blue' \\ $(touch no)"
    world.timeline.do_AddMarker(12, "Blue", "Fresco", prompt, 1)
    said = run(world)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert (arguments[0], arguments[8:]) == ("otio", ["--clips", "it's a shot.[[]1001-1016].exr"])
    looks = json.loads(Path(arguments[5]).read_text())
    assert looks == {"it's a shot.[[]1001-1016].exr": {"prompt": prompt}}
    assert said[-1] == ("Fresco: the timeline is imported as Timeline 1 FRESCO; its frames are in "
                        f"{arguments[arguments.index('--media') + 1]}")
    assert [timeline.name for timeline in world.project.timelines] == ["Timeline 1", "Timeline 1 FRESCO"]
    assert (world.violations, (tmp_path / "no").exists()) == ([], False)


def test_each_run_has_frames_and_a_timeline_of_its_own(world: World, tmp_path: Path) -> None:
    """Outside of the folder for temporary files: the first timeline goes on showing the first look."""
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    for clock in (1000, 2000):
        world.project.current = world.timeline  # an import is shown
        run(world, clock)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    folders = [Path(after) for word, after in pairwise(arguments) if word == "--media"]
    assert folders == [tmp_path / "Fresco/Timeline_1" / name for name in ("otio-1000", "otio-2000")]
    assert [timeline.name for timeline in world.project.timelines] == [
        "Timeline 1", "Timeline 1 FRESCO", "Timeline 1 FRESCO 2"]


def test_a_clip_that_is_switched_off_is_looked_through(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path / "above", Cut(track=2, first=2001, name="above.%04d.exr")).enabled = False
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    run(world)
    assert (tmp_path / "arguments").read_text().splitlines()[9:] == ["it's a shot.[[]1001-1016].exr"]


def test_the_command_starts_where_resolve_has_a_python_of_its_own(world: World, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/the/python/of/resolve")
    command(tmp_path, 'echo "home $PYTHONHOME" > "$HOME/python"; cp "$2" "$4"')
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    run(world)
    assert (tmp_path / "python").read_text() == "home \n"


def test_on_windows_what_its_command_line_lacks_is_any_letter(world: World) -> None:
    world.timeline.items()[0].name = 'été 50% "日本".[1001-1016].exr'
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    line = run(world, windows=True)[0].removeprefix("Fresco: ")
    assert line.startswith('"set "PYTHONHOME=" & fresco otio "')
    pattern = line.removesuffix('""').rpartition(' "')[2]
    assert pattern == "?t? 50? ????.[[]1001-1016].exr"
    assert fnmatch.fnmatchcase(world.timeline.items()[0].name, pattern)


def test_several_markers_are_one_order(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path / "second", Cut(start=30, first=2001, name="second.%04d.exr"))
    world.timeline.do_AddMarker(31, "Blue", "fresco", "a mosaic", 1)
    world.timeline.do_AddMarker(10, "Blue", "fresco", "a comic", 1)
    run(world)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[9:] == ["it's a shot.[[]1001-1016].exr", "second.[[]2001-2016].exr"]
    assert [look["prompt"] for look in json.loads(Path(arguments[5]).read_text()).values()] == ["a comic", "a mosaic"]


def test_a_track_that_is_switched_off_is_looked_through(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path / "above", Cut(track=2, first=2001, name="above.%04d.exr"))
    world.timeline.tracks["video"][1].enabled = False
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    run(world)
    assert (tmp_path / "arguments").read_text().splitlines()[9:] == ["it's a shot.[[]1001-1016].exr"]


@pytest.mark.parametrize(("notes", "done"), [
    (["a comic"], False), (["a comic", "a mosaic"], False), (["a comic", "a comic"], True)])
def test_clips_of_one_name_take_one_look_only_if_all_are_marked_so(world: World, tmp_path: Path, notes: list[str],
                                                                   done: bool) -> None:
    edited(world, tmp_path, Cut(start=30, skipped=8, name="it's a shot.%04d.exr"))
    for frame, note in zip((12, 31), notes, strict=False):
        world.timeline.do_AddMarker(frame, "Blue", "fresco", note, 1)
    said = run(world)
    assert ('several clips are named "it\'s a shot.[1001-1016].exr"' in said[-1]) is not done
    assert (tmp_path / "arguments").exists() is done


def test_the_real_command_understands_the_order(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fresco otio` finds the clip by its name and takes its look; only the render is left out (--shots)."""
    monkeypatch.setattr(Timeline, "do_Export", exported_otio)
    monkeypatch.setattr(MediaPool, "do_ImportTimelineFromFile", lambda pool, path, options: None)
    paths = ":".join(str(ROOT / room) for room in ("protocol", "backend"))
    command(tmp_path, f'PYTHONPATH={paths} exec {sys.executable} -m fresco_backend.cli "$@" --shots "$HOME/shots" '
                      '2> "$HOME/said"')
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    run(world)
    shots = [Shot.from_json(path.read_text()) for path in (tmp_path / "shots").glob("*.json")]
    assert [shot.look.prompt for shot in shots] == ["a comic"], (tmp_path / "said").read_text()
    assert [str(frames) for frames in shots[0].plate.frames or ()] == ["1001-1016"]  # with the handles that there are


def exported_otio(timeline: Timeline, path: str, _kind: str, _more: str) -> bool:
    """What Resolve does, by OpenTimelineIO's own model."""
    import opentimelineio as otio

    made = otio.schema.Timeline(name=timeline.name)
    track = otio.schema.Track(kind="Video")
    made.tracks.append(track)
    for item in timeline.items():
        media = item.shown.media
        assert media is not None
        name = Path(media.path).name
        reference = otio.schema.ImageSequenceReference(
            target_url_base=f"{Path(media.path).parent}/", name_prefix=name.split("%")[0], name_suffix=".exr",
            start_frame=media.first, rate=24, frame_zero_padding=4, available_range=otio.opentime.TimeRange(
                otio.opentime.RationalTime(media.first, 24), otio.opentime.RationalTime(media.count, 24)))
        track.append(otio.schema.Clip(name=item.name, media_reference=reference, source_range=otio.opentime.TimeRange(
            otio.opentime.RationalTime(item.shown.first, 24), otio.opentime.RationalTime(item.duration, 24))))
    otio.adapters.write_to_file(made, path)
    return True


@pytest.mark.parametrize("markers", [[], [(12, "note", "a comic")], [(12, "fresco", "")], [(300, "fresco", "a comic")]])
def test_without_an_order_the_way_is_told(world: World, tmp_path: Path, markers: list[tuple[int, str, str]]) -> None:
    for frame, name, note in markers:
        world.timeline.do_AddMarker(frame, "Blue", name, note, 1)
    assert 'put a marker named "fresco"' in run(world)[0]
    assert not (tmp_path / "arguments").exists()


def test_a_command_that_fails_imports_nothing(world: World, tmp_path: Path) -> None:
    command(tmp_path, "exit 3")
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    assert "the command failed" in run(world)[-1]
    assert len(world.project.timelines) == 1


def test_an_import_that_fails_names_the_file(world: World, tmp_path: Path) -> None:
    command(tmp_path, 'echo nothing > "$4"')
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    assert "import it by hand" in run(world)[-1]


def test_the_installers_command_is_used(world: World, tmp_path: Path) -> None:
    folder = tmp_path / ".local/share/DaVinciResolve/Fusion/Modules/Fresco"
    folder.mkdir(parents=True)
    (tmp_path / "bin" / "fresco").rename(tmp_path / "bin" / "my fresco")
    (folder / "command.txt").write_text(f"{tmp_path / 'bin' / 'my fresco'}\n")
    world.timeline.do_AddMarker(12, "Blue", "fresco", "a comic", 1)
    assert "imported" in run(world)[-1]
