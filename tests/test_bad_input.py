# SPDX-License-Identifier: Apache-2.0
"""Bad input from the command line to the exit code: each message says what, where and what to do next."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import families
import lora_files
import numpy as np
import pytest
from shots import bits, write_plate

import tiny
from fresco_backend import cli

Spoil = Callable[[Path], object]


class Case(NamedTuple):
    """What is done to the folder, which options are given, and what the command says then."""

    spoil: Spoil | None
    options: list[str]
    code: str
    exit_code: int
    words: list[str]


def other_size(folder: Path) -> None:
    tiny.write_sequence(folder / "plate", tiny.moving_plate(1, 32).frames, first=1003)


def read_only(folder: Path) -> None:
    """Not by permissions, which an administrator passes over: a file lies where the folder should be."""
    (folder / "out").write_bytes(b"")


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "plate")
    (folder / "plate").mkdir()


def some_mattes(folder: Path, *numbers: int) -> None:
    """Mattes for these of the plate's four frames, else for the first two."""
    for number in numbers or (1001, 1002):
        tiny.write_sequence(folder / "matte", tiny.moving_plate(1, 64).matte, first=number, name="matte")


def foreign_lora(folder: Path) -> None:
    lora_files.save(folder / "ink.safetensors", [("unet", families.sdxl_unet())])


CASES = {
    "missing plate": Case(lambda folder: shutil.rmtree(folder / "plate"), [], "plate-missing", 3,
                          ["folder of the plate does not exist", "plate.%04d.png", "Check the path"]),
    "zero frames": Case(empty, [], "plate-missing", 3, ["no file of the plate was found", "padding"]),
    "gap": Case(lambda folder: (folder / "plate" / "plate.1003.png").unlink(), [], "frame-gap", 3,
                ["frames 1003 are missing", "--missing hold"]),
    "another size": Case(other_size, [], "frame-size", 3,
                         ["frame 1003 is 32x32, and frame 1001 is 64x64", "plate.1003.png", "Render the odd one"]),
    "unreadable frame": Case(lambda folder: (folder / "plate" / "plate.1002.png").write_bytes(b"\x89PNG no"), [],
                             "frame-unreadable", 3, ["cannot be read", "plate.1002.png", "copy the frame again"]),
    "range outside": Case(None, ["--frames", "1003-1007"], "range-outside", 3,
                          ["frames 1005-1007 lie outside", "1001-1004", "Choose frames from 1001 to 1004"]),
    "empty range": Case(None, ["--frames", ""], "usage", 2, ["--frames", "1001-1048"]),
    "empty prompt": Case(None, ["--prompt", ""], "usage", 2, ["--prompt"]),
    "no frame field": Case(None, ["-o", "{folder}/out/look.png"], "output-pattern", 4,
                           ["4 frames would be written to one file", "look.png", "look.####.png"]),
    "output is plate": Case(None, ["-o", "{folder}/plate/plate.####.png"], "output-is-plate", 4,
                            ["would overwrite its own source", "plate.1001.png", "Choose another folder"]),
    "output is plate by a link": Case(lambda folder: (folder / "out").symlink_to(folder / "plate"),
                                      ["-o", "{folder}/out/plate.%04d.png"], "output-is-plate", 4,
                                      ["would overwrite its own source"]),
    "read-only output": Case(read_only, [], "output-denied", 4, ["cannot be made", "out", "folder"]),
    "unknown file type": Case(None, ["-o", "{folder}/out/look.####.bmp"], "output-pattern", 4,
                              ["'.bmp' is no file type", ".exr", ".mp4"]),
    "a folder as delivery": Case(None, ["-o", "{folder}/out"], "output-pattern", 4,
                                 ["names no file type", "out/look.####.exr", "out/look.mov"]),
    "unknown colour space": Case(None, ["--color-space", "LogC7"], "color", 6, ["'LogC7' is unknown", "ARRI LogC4"]),
    "missing matte": Case(None, ["--matte", "{folder}/matte.####.png"], "matte", 3,
                          ["the matte is missing", "matte.####.png", "Check the name"]),
    "matte of some frames": Case(some_mattes, ["--matte", "{folder}/matte/matte.####.png"], "matte", 3,
                             ["the matte lacks frames 1003-1004", "matte.####.png", "--matte-propagate"]),
    "matte with a gap": Case(lambda folder: some_mattes(folder, 1001, 1002, 1004),
                             ["--matte", "{folder}/matte/matte.####.png"], "matte", 3,
                             ["the matte lacks frames 1003 ", "Render them"]),
    "matte of one frame": Case(some_mattes, ["--matte", "{folder}/matte/matte.1001.png"], "matte", 3,
                               ["the matte lacks frames 1002-1004", "matte.1001.png", "as in matte.####.png"]),
    "missing control images": Case(None, ["--control-sequence", "{folder}/lines.####.png"], "plate-missing", 3,
                                   ["the control images are missing", "lines.####.png", "Check the name"]),
    "missing LoRA": Case(None, ["--lora", "{folder}/ink.safetensors"], "weights-missing", 7, ["ink.safetensors"]),
    "pickled LoRA": Case(None, ["--lora", "{folder}/ink.pt"], "weights-refused", 7, ["pickle", "Convert it with"]),
    "LoRA of another model": Case(foreign_lora, ["--lora", "{folder}/ink.safetensors=0.5"], "weights-unsupported", 7,
                                  ["which this model does not have", "ink.safetensors", "made for this model"]),
    "missing autoencoder": Case(None, ["--vae", "{folder}/vae"], "weights-missing", 7, ["vae"]),
    "pickled autoencoder": Case(None, ["--vae", "{folder}/vae.bin"], "weights-refused", 7, ["pickle"]),
    "depth without a network": Case(None, ["--control", "depth"], "weights-missing", 7,
                                    ["fresco models pull depth-anything/Depth-Anything-V2-Small-hf"]),
    "missing detector": Case(None, ["--control", "depth", "--control-detector", "depth={folder}/net"],
                             "weights-missing", 7, ["net"]),
    "weight of words": Case(None, ["--prompt", "a (photo:9)"], "usage", 2, ["(photo:9)", "from 0 to 4"]),
    "weight in a cue": Case(None, ["--cue", "1001-1002: dusk -> (night:-1)"], "usage", 2, ["(night:-1)"]),
    "missing model": Case(None, ["--model", "{folder}/no-model"], "weights-missing", 7, ["no-model"]),
    "keyframe outside": Case(None, ["--keyframes", "1001,1009"], "range-outside", 3,
                             ["keyframe 1009 is not a frame of the shot", "its frames, 1001-1004"]),
    "movie without rate": Case(None, ["-o", "{folder}/out/look.mov"], "usage", 2, ["frame rate", "--rate 24"]),
}


@pytest.fixture
def command(tiny_model: Path, tmp_path: Path) -> list[str]:
    pattern = write_plate(tmp_path / "plate", 4)
    return ["render", str(pattern), "-o", str(tmp_path / "out" / "look.####.png"), "--prompt", "a photo", "--model",
            str(tiny_model), "--steps", "2", "--strength", "0.5", "--keyframes", "every:3", "--json"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_input_is_named(
    case: Case, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if case.spoil is not None:
        case.spoil(tmp_path)
    options = [option.replace("{folder}", str(tmp_path)) for option in case.options]
    assert cli.main([*command, *options]) == case.exit_code
    said = capsys.readouterr()
    error = json.loads(said.out.splitlines()[-1])
    assert (error["event"], error["code"], error["exit_code"]) == ("error", case.code, case.exit_code)
    for words in case.words:
        assert words in said.err
    assert "Traceback" not in said.err
    out = tmp_path / "out"
    assert not list(out.rglob("*.part")) if out.is_dir() else True


@pytest.mark.parametrize(("number", "code", "words"), [
    (errno.EACCES, "input", "its rights there"), (errno.ESTALE, "input", "See that it is mounted"),
    (errno.ENAMETOOLONG, "input", "the path leads nowhere"), (errno.ENOSPC, "disk-full", "Make room")])
@pytest.mark.parametrize("verb", [["render", "--dry-run"], ["submit", "--upload"]])
def test_a_folder_that_the_system_refuses_is_no_bug(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    verb: list[str], number: int, code: str, words: str,
) -> None:  # fmt: skip
    """Not by permissions, which an administrator passes over."""
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent == tmp_path / "plate":
            raise OSError(number, os.strerror(number), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert cli.main([*verb, *command[1:]]) in (3, 4)
    said = capsys.readouterr()
    assert json.loads(said.out)["code"] == code
    assert words in said.err and str(tmp_path / "plate") in said.err


@pytest.mark.parametrize(("policy", "frames"), [("hold", [1001, 1002, 1003, 1004]), ("skip", [1001, 1002, 1004])])
def test_a_gap_is_held_or_skipped_on_request(
    policy: str, frames: list[int], command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "plate" / "plate.1003.png").unlink()
    assert cli.main([*command, "--missing", policy]) == 0
    assert list(bits(tmp_path / "out")) == [f"look.{frame}.png" for frame in frames]


def test_broken_samples_are_counted_in_the_log(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = tiny.moving_plate(4, 64).frames
    frames[2, 0, 0] = np.nan
    pattern = tiny.write_sequence(tmp_path / "hdr", frames, suffix="exr", bits="half")
    assert cli.main([command[0], str(pattern), *command[2:], "-o", str(tmp_path / "out" / "look.####.exr")]) == 0
    said = capsys.readouterr()
    warned = [json.loads(line) for line in said.out.splitlines() if '"warned"' in line]
    assert [(event["code"], event["frame"], event["text"][:5]) for event in warned] == [("non-finite", 1003, "3 NaN")]
    assert "3 NaN or infinite samples" in said.err


def test_the_command_goes_on_where_an_unreadable_frame_stopped_it(command: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "plate" / "plate.1004.png"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    assert cli.main(command) == 3
    broken.write_bytes(content)
    assert cli.main(command) == 0
    assert list(bits(tmp_path / "out")) == [f"look.{frame}.png" for frame in range(1001, 1005)]


@pytest.mark.parametrize("command", ["render", "submit"])
@pytest.mark.parametrize(("name", "meant"), [
    ("shot.jsn", "shot.json"), ("shto.json", "shot.json"), ("clip.mvo", None), ("shot.####.jsn", None)])
def test_a_mistyped_document_is_told_the_one_that_was_meant(
        command: str, name: str, meant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """Before it is asked for a prompt, which the document has."""
    for there in ("shot.json", "clip.json", "clip.mov"):
        (tmp_path / there).touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, name]) == (3 if meant else 2)
    said = capsys.readouterr().err
    assert f"Did you mean {meant}?" in said if meant else "--prompt is missing" in said
