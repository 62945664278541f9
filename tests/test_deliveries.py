# SPDX-License-Identifier: Apache-2.0
"""Writing: whole files or none, never over a plate, and every way in which a disk can refuse."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from plain_user import plain_user
from plates import frame, header, noise, with_pixels, write_sequence

from fresco_backend.files.deliveries import DeliveryWriter, Encoding, make_writable
from fresco_backend.files.frames import ExtraChannel, read_frame
from fresco_backend.files.image_files import decoded
from fresco_protocol.errors import DiskFull, FrameUnreadable, OutputDenied, OutputIsPlate, OutputPattern
from fresco_protocol.shot import BitDepth

JOB = "5f" * 32
PATHS = os.pathsep.join(path for path in sys.path if path)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("extension", ["exr", "png", "tif", "dpx", "jpg"])
def test_a_frame_is_delivered_under_its_own_job_only(tmp_path: Path, extension: str) -> None:
    writer = DeliveryWriter(tmp_path / "new" / f"out.%04d.{extension}", [7, 8], like=frame())
    assert files(tmp_path / "new") == []  # the probe leaves nothing
    assert not writer.is_delivered(7, JOB)
    assert writer.write(7, frame(), JOB).path == tmp_path / "new" / f"out.0007.{extension}"
    assert files(tmp_path / "new") == [f"out.0007.{extension}"]
    assert writer.is_delivered(7, JOB)
    assert not writer.is_delivered(7, "00" * 32)
    assert not writer.is_delivered(8, JOB)


@pytest.mark.parametrize("extension", ["exr", "png", "tif"])
def test_the_job_of_a_plate_that_was_a_delivery_is_not_inherited(tmp_path: Path, extension: str) -> None:
    first = DeliveryWriter(tmp_path / f"a.{extension}", [1], like=frame()).write(1, frame(), JOB)
    source = read_frame(first.path)
    writer = DeliveryWriter(tmp_path / f"b.{extension}", [1], like=source)
    writer.write(1, source, "11" * 32)
    assert writer.is_delivered(1, "11" * 32)


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_scan_is_shown_as_the_plate_or_as_the_plate_is_stored(tmp_path: Path, tag: int) -> None:
    """By the numbers of SMPTE ST 268, which stand at byte 768 of the file; width and height are never exchanged."""
    plate = header(frame(depth=BitDepth.UINT8, file_type="jpeg"), Orientation=tag)
    path = DeliveryWriter(tmp_path / "a.####.dpx", [1], like=plate).write(1, plate, "0").path
    content = path.read_bytes()
    code = int.from_bytes(content[768:770], "big" if content.startswith(b"SDPX") else "little")
    assert code == {1: 0, 2: 1, 3: 3, 4: 2}.get(tag, 0)


def test_a_dpx_has_room_for_its_job_beside_a_long_name_of_a_project(tmp_path: Path) -> None:
    source = frame(depth=BitDepth.UINT16, file_type="dpx")
    source.metadata.attribute("DocumentName", "a project " * 25)
    writer = DeliveryWriter(tmp_path / "a.dpx", [1], like=source)
    made = read_frame(writer.write(1, source, JOB).path)
    assert writer.is_delivered(1, JOB)
    assert made.metadata.get_string_attribute("DocumentName").startswith("a project a project ")


@pytest.mark.parametrize("extension", ["exr", "png"])
def test_a_torn_file_is_not_delivered(tmp_path: Path, extension: str) -> None:
    writer = DeliveryWriter(tmp_path / f"out.%04d.{extension}", [1], like=frame(64, 64))
    path = writer.write(1, frame(64, 64), JOB).path
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])
    assert not writer.is_delivered(1, JOB)


def test_a_single_flipped_bit_in_whichever_channel_is_noticed(tmp_path: Path) -> None:
    depth = ExtraChannel(name="Z", samples=noise(16, 24, seed=9), format=BitDepth.FLOAT)
    source = replace(frame(alpha=noise(16, 24)), extra=(depth,))
    path = DeliveryWriter(tmp_path / "out.exr", [1], like=source).write(1, source, JOB).path
    whole = path.read_bytes()
    packed = len(whole) * 3 // 4  # the header is far shorter than the rest
    for place in range(len(whole) - packed, len(whole), packed // 50):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(FrameUnreadable):
            decoded(path)


def test_a_delivery_of_frames_needs_a_frame_field(tmp_path: Path) -> None:
    with pytest.raises(OutputPattern, match=r"out\.####\.exr"):
        DeliveryWriter(tmp_path / "out.exr", [1, 2], like=frame())
    with pytest.raises(OutputPattern, match="before the extension"):
        DeliveryWriter(tmp_path / "out_%04d_v2.exr", [1, 2], like=frame())
    with pytest.raises(OutputPattern, match=r"\.xyz"):
        DeliveryWriter(tmp_path / "out.%04d.xyz", [1, 2], like=frame())
    assert files(tmp_path) == []


def test_a_delivery_never_overwrites_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = write_sequence(tmp_path / "plate", [1, 2, 3])
    sources = [tmp_path / "plate" / f"plate.000{number}.exr" for number in (1, 2, 3)]
    (tmp_path / "link").symlink_to(tmp_path / "plate")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.0002.exr").hardlink_to(sources[1])
    (tmp_path / "other" / "y.0003.exr").symlink_to(sources[2])
    monkeypatch.chdir(tmp_path / "plate")
    before = [source.read_bytes() for source in sources]
    targets: list[tuple[str | Path, list[int]]] = [
        (pattern, [1]),
        ("../plate/plate.%04d.exr", [3]),
        ("plate.####.exr", [1]),
        ("plate.0002.exr", [2]),
        (tmp_path / "link" / "plate.@@@@.exr", [2]),
        (tmp_path / "other" / "x.%04d.exr", [1, 2]),
        (tmp_path / "other" / "y.%04d.exr", [1, 2, 3]),
    ]
    for path, numbers in targets:
        with pytest.raises(OutputIsPlate):
            DeliveryWriter(path, numbers, like=frame(), sources=sources)
    assert [source.read_bytes() for source in sources] == before
    DeliveryWriter(pattern, [4], like=frame(), sources=sources)  # beside the plate is allowed


def test_a_folder_that_cannot_be_made_is_denied_before_rendering(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputDenied, match="cannot be made") as refusal:
        DeliveryWriter(tmp_path / "file" / "deeper" / "out.%04d.exr", [1, 2], like=frame())
    assert refusal.value.remedy == f"{tmp_path / 'file'} is no folder: choose another one."
    with pytest.raises(OutputDenied, match="cannot be made") as refusal:
        DeliveryWriter("/proc/fresco/deeper/out.%04d.exr", [1, 2], like=frame())
    assert refusal.value.remedy == "Only /proc is there: make the folder, or choose one that you may write."


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_rights_is_denied_before_rendering(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "not-ours"
    folder.mkdir()
    folder.chmod(mode)
    with plain_user(tmp_path), pytest.raises(OutputDenied, match="Permission denied"):
        DeliveryWriter(folder / "out.%04d.exr", [1, 2], like=frame())
    folder.chmod(0o755)
    assert files(folder) == []


def _program(line: str) -> str:
    return (
        f"import sys; sys.path[:0] = {PATHS.split(os.pathsep)!r}\n"
        "from plates import frame\nfrom fresco_backend.files.deliveries import DeliveryWriter\n" + line
    )


LIMITED = """
import resource, sys
from pathlib import Path
from fresco_protocol.errors import FrescoError
writer = DeliveryWriter(sys.argv[1], [1, 2], like=frame())
writer.write(1, frame(16, 16), "aa")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # from here on a file of more bytes is refused
try:
    writer.write(2, frame(256, 256), "aa")
except FrescoError as error:
    print(error.code, Path(error.where).name)
"""


@pytest.mark.parametrize("extension", ["exr", "png", "tif", "dpx", "jpg"])
def test_a_write_that_the_system_cuts_short_leaves_no_file(tmp_path: Path, extension: str) -> None:
    command = [sys.executable, "-c", _program(LIMITED), str(tmp_path / f"out.%04d.{extension}")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("disk-full")
    assert files(tmp_path) == [f"out.0001.{extension}"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("only root can mount a small disk; the limit of the file size is tested above")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("extension", ["exr", "png", "tif", "dpx", "jpg"])
def test_a_full_disk_costs_the_frame_and_no_other(small_disk: Path, extension: str) -> None:
    large = frame(512, 512, depth=BitDepth.UINT8) if extension == "jpg" else frame(400, 400)
    writer = DeliveryWriter(small_disk / f"out.%04d.{extension}", range(1, 9), like=large)
    with pytest.raises(DiskFull, match="delivered frames are kept"):
        for number in range(1, 9):
            writer.write(number, large, JOB)
    delivered = files(small_disk)
    assert delivered
    assert len(delivered) < 8
    for name in delivered:
        assert read_frame(small_disk / name).size == large.size
    (small_disk / delivered[-1]).unlink()
    writer.write(len(delivered), large, JOB)  # with room again it goes on


def test_a_disk_without_any_room_is_named_and_left_as_it_was(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(2**12))
    with pytest.raises(DiskFull):
        make_writable(small_disk)
    assert files(small_disk) == ["ballast"]


def test_a_folder_that_another_process_removes_meanwhile_is_made_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the one of a movie's pictures is, at the moment when another process has finished the movie."""
    usual = DeliveryWriter._sweep
    swept: list[DeliveryWriter] = []

    def removed(writer: DeliveryWriter) -> None:
        usual(writer)
        if not swept:
            shutil.rmtree(tmp_path / "out")
        swept.append(writer)

    monkeypatch.setattr(DeliveryWriter, "_sweep", removed)
    writer = DeliveryWriter(tmp_path / "out" / "look.####.exr", [1], like=frame(20, 20))
    assert writer.write(1, frame(20, 20), JOB).path.is_file()
    assert len(swept) == 2


KILLED = """
import sys
big = frame(200, 150)
writer = DeliveryWriter(sys.argv[1], range(1, 2000), like=big)
print("ready", flush=True)
for number in range(1, 2000):
    writer.write(number % 5, big, "aa")
"""


def test_kill_in_the_middle_of_writes_leaves_only_whole_files(tmp_path: Path) -> None:
    left = 0
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _program(KILLED), str(tmp_path / "out.%04d.exr")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 + 0.023 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in tmp_path.glob("out.*.exr"):
            assert read_frame(path).size == (200, 150)
            left += 1
    assert left
    writer = DeliveryWriter(tmp_path / "out.%04d.exr", range(5), like=frame())
    assert all(writer.is_delivered(number, "aa") for number in range(5) if writer.path(number).exists())


def test_leftovers_of_dead_processes_are_swept_by_age(tmp_path: Path) -> None:
    old, young, foreign = (
        tmp_path / name for name in (".out.0001.exr.9.part", ".out.0002.exr.9.part", ".x.0001.exr.9.part")
    )
    for part in (old, young, foreign):
        part.write_bytes(b"half")
    for part in (old, foreign):
        os.utime(part, (time.time() - 2 * 86400,) * 2)
    DeliveryWriter(tmp_path / "out.%04d.exr", [1], like=frame())
    assert files(tmp_path) == sorted([young.name, foreign.name])


def test_a_file_that_another_process_finishes_during_the_sweep_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished, listed = tmp_path / ".out.0001.exr.9.part", Path.glob
    unfinished.write_bytes(b"half")

    def finished_meanwhile(folder: Path, pattern: str) -> list[Path]:
        found = list(listed(folder, pattern))
        unfinished.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "glob", finished_meanwhile)
    DeliveryWriter(tmp_path / "out.%04d.exr", [1], like=frame())
    assert files(tmp_path) == []


def test_deliveries_are_finite_and_the_changes_are_counted(tmp_path: Path) -> None:
    pixels = frame(4, 4).pixels.copy()
    pixels[0, 0] = [np.nan, np.inf, -np.inf]
    pixels[1, 1] = [70000.0, -70000.0, 65504.0]
    source = with_pixels(frame(4, 4), pixels)
    written = DeliveryWriter(tmp_path / "half.exr", [1], like=source).write(1, source, JOB)
    assert (written.replaced, written.clamped) == (3, 2)
    back = read_frame(written.path).pixels
    assert back[0, 0].tolist() == [0.0, 65504.0, -65504.0]
    assert back[1, 1].tolist() == [65504.0, -65504.0, 65504.0]
    written = DeliveryWriter(
        tmp_path / "float.exr", [1], like=source, encoding=Encoding(bit_depth=BitDepth.FLOAT)
    ).write(1, source, JOB)
    assert (written.replaced, written.clamped) == (3, 0)
    assert read_frame(written.path).pixels[1, 1, 0] == 70000.0


def test_tall_frames_with_alpha_are_finite_from_top_to_bottom(tmp_path: Path) -> None:
    source = frame(8, 200, alpha=np.ones((200, 8), np.float32))
    pixels, alpha = source.pixels.copy(), np.ones((200, 8), np.float32)
    pixels[[0, 63, 64, 199], 3, 1] = [np.nan, 70000.0, np.inf, -70000.0]
    alpha[[64, 199], 5] = [np.nan, 0.25]
    source = replace(source, pixels=pixels, alpha=alpha)
    written = DeliveryWriter(tmp_path / "out.exr", [1], like=source).write(1, source, JOB)
    assert (written.replaced, written.clamped) == (3, 2)
    back = read_frame(written.path)
    assert back.pixels[[0, 63, 64, 199], 3, 1].tolist() == [0.0, 65504.0, 65504.0, -65504.0]
    assert back.alpha is not None
    assert back.alpha[[64, 199], 5].tolist() == [0.0, 0.25]
    untouched = np.abs(pixels) <= 65504  # False of NaN
    assert np.array_equal(back.pixels[untouched], pixels[untouched])
    assert np.array_equal(np.delete(back.alpha, [64, 199], 0), np.delete(alpha, [64, 199], 0))


def test_a_frame_holds_nothing_of_the_frame_before(tmp_path: Path) -> None:
    ids = ExtraChannel(name="id", samples=np.full((16, 24), np.float32(7)), format=BitDepth.HALF)
    veil = np.full((16, 24), np.float32(0.5))
    first, second = replace(frame(seed=1, alpha=veil), extra=(ids,)), frame(seed=2, alpha=veil * 0.5)
    third = replace(second, extra=(replace(ids, samples=ids.samples * 3),))
    writer = DeliveryWriter(tmp_path / "out.####.exr", range(4), like=first)
    for number, source in enumerate((first, second, third, first)):
        back = read_frame(writer.write(number, source, JOB).path)
        assert back.alpha is not None
        assert source.alpha is not None
        assert np.array_equal(back.pixels, source.pixels)
        assert np.array_equal(back.alpha, source.alpha)
        assert [channel.samples.tolist() for channel in back.extra] == [
            channel.samples.tolist() for channel in source.extra
        ]


def test_depth_and_compression_follow_the_plate_or_the_order(tmp_path: Path) -> None:
    source = header(frame(), compression="piz")
    plain = read_frame(DeliveryWriter(tmp_path / "a.exr", [1], like=source).write(1, source, JOB).path)
    assert (plain.format, plain.metadata.get_string_attribute("compression")) == (BitDepth.HALF, "piz")
    encoding = Encoding(bit_depth=BitDepth.FLOAT, compression="dwaa:20")
    ordered = read_frame(
        DeliveryWriter(tmp_path / "b.exr", [1], like=source, encoding=encoding).write(1, source, JOB).path
    )
    assert (ordered.format, ordered.metadata.get_string_attribute("compression")) == (BitDepth.FLOAT, "dwaa")
    png = read_frame(DeliveryWriter(tmp_path / "c.png", [1], like=source).write(1, source, JOB).path)
    assert png.format is BitDepth.UINT16


@pytest.mark.parametrize(("before", "after"), [(BitDepth.UINT8, BitDepth.UINT16), (BitDepth.UINT16, BitDepth.UINT8)])
@pytest.mark.parametrize("extension", ["dpx", "tif", "png"])
def test_another_depth_than_the_plates_is_what_was_ordered(
        extension: str, before: BitDepth, after: BitDepth, tmp_path: Path) -> None:
    """Files state their bits beside, which are the plate's."""
    source = frame(depth=before, file_type=extension)
    plate = read_frame(DeliveryWriter(tmp_path / f"a.{extension}", [1], like=source).write(1, source, JOB).path)
    writer = DeliveryWriter(tmp_path / f"b.{extension}", [1], like=plate, encoding=Encoding(bit_depth=after))
    made = read_frame(writer.write(1, plate, JOB).path)
    assert made.format is after
    assert made.pixels == pytest.approx(plate.pixels, abs=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("extension", ["dpx", "tiff"])
@pytest.mark.parametrize("bits", [10, 12])
def test_a_plate_of_few_bits_is_delivered_in_them_or_in_all_where_those_are_ordered(
        bits: int, extension: str, tmp_path: Path) -> None:
    source = header(frame(depth=BitDepth.UINT16, file_type=extension), oiio__BitsPerSample=bits)
    plate = read_frame(DeliveryWriter(tmp_path / f"a.{extension}", [1], like=source).write(1, source, JOB).path)
    finer = with_pixels(plate, np.clip(plate.pixels + np.float32(3 / 65535), 0, 1))
    for ordered, stored in ((None, bits), (BitDepth.UINT16, 16)):
        writer = DeliveryWriter(tmp_path / f"b.{extension}", [1], like=plate, encoding=Encoding(bit_depth=ordered))
        made = read_frame(writer.write(1, finer, JOB).path)
        assert made.metadata.get_int_attribute("oiio:BitsPerSample") == stored
        off = float(np.abs(made.pixels - finer.pixels).max())
        assert (off < 0.5 / 65535) is (ordered is not None)
        assert made.pixels == pytest.approx(plate.pixels, abs=1.1 / (2**bits - 1))


def test_the_quality_of_a_jpeg_is_the_orders(tmp_path: Path) -> None:
    source = frame(64, 64, depth=BitDepth.UINT8)
    sizes = []
    for quality in (20, 95):
        encoding = Encoding(compression=f"jpeg:{quality}")
        writer = DeliveryWriter(tmp_path / f"{quality}.jpg", [1], like=source, encoding=encoding)
        sizes.append(writer.write(1, source, JOB).path.stat().st_size)
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("a.exr", Encoding(compression="bogus")),
        ("a.exr", Encoding(compression="htj2k")),
        ("a.png", Encoding(compression="zip")),
        ("a.exr", Encoding(bit_depth=BitDepth.UINT8)),
        ("a.png", Encoding(bit_depth=BitDepth.HALF)),
        ("a.jpg", Encoding(bit_depth=BitDepth.UINT16)),
        ("a.jpg", Encoding(compression="dwaa:45")),
    ],
)
def test_what_a_file_type_cannot_store_is_refused_before_rendering(
    tmp_path: Path, name: str, encoding: Encoding
) -> None:
    with pytest.raises(OutputPattern):
        DeliveryWriter(tmp_path / name, [1], like=frame(), encoding=encoding)
    assert files(tmp_path) == []


def test_extra_channels_are_refused_where_they_would_be_lost(tmp_path: Path) -> None:
    source = replace(frame(), extra=(ExtraChannel(name="Z", samples=noise(16, 24), format=BitDepth.FLOAT),))
    with pytest.raises(OutputPattern, match="Z"):
        DeliveryWriter(tmp_path / "a.png", [1], like=source)
    with pytest.raises(OutputPattern, match="A"):
        DeliveryWriter(tmp_path / "a.jpg", [1], like=frame(alpha=noise(16, 24)))
    opaque = frame(alpha=np.ones((16, 24), np.float32))
    assert DeliveryWriter(tmp_path / "a.jpg", [1], like=opaque).write(1, opaque, JOB).path.exists()
    assert files(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("colour", ["RGB", "RGBA"])
def test_ids_in_half_keep_every_bit_those_of_no_number_included(tmp_path: Path, colour: str) -> None:
    ids = np.resize(np.array([0x7C01, 0x7DFF, 0xFC07, 0x7E01, 0x3C01], np.uint16), (16, 24))
    plate = oiio.ImageOutput.create(str(tmp_path / "plate.exr"))
    assert plate is not None
    spec = oiio.ImageSpec(24, 16, len(colour) + 1, "half")
    spec.channelnames, spec.alpha_channel = (*colour, "id"), colour.find("A")
    samples = np.dstack([noise(16, 24, len(colour)).astype(np.float16), ids.view(np.float16)])
    assert plate.open(str(tmp_path / "plate.exr"), spec) and plate.write_image(samples) and plate.close()
    source = read_frame(tmp_path / "plate.exr")
    DeliveryWriter(tmp_path / "out.exr", [1], like=source).write(1, source, JOB)
    for name in ("plate.exr", "out.exr"):
        image = oiio.ImageInput.open(str(tmp_path / name))
        assert image is not None
        stored = np.ascontiguousarray(image.read_image(0, 0, len(colour), len(colour) + 1, oiio.HALF))
        assert np.array_equal(stored.view(np.uint16)[..., 0], ids), name


def test_a_damaged_write_is_noticed_by_reading_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library may report success for a file that is not whole; here it is made to."""
    writer = DeliveryWriter(tmp_path / "out.exr", [1], like=frame(64, 64))
    create = oiio.ImageOutput.create

    class Liar:
        def __init__(self, kind: str) -> None:
            image = create(kind)
            assert image is not None
            self.image = image

        def open(self, path: str, spec: oiio.ImageSpec) -> bool:
            self.path = Path(path)
            return bool(self.image.open(path, spec))

        def write_image(self, samples: object) -> bool:
            return bool(self.image.write_image(samples))

        def close(self) -> bool:
            self.image.close()
            self.path.write_bytes(self.path.read_bytes()[:-500])
            return True

        def geterror(self) -> str:
            return ""

    monkeypatch.setattr(oiio.ImageOutput, "create", Liar)
    with pytest.raises(Exception, match="could not be written"):
        writer.write(1, frame(64, 64), JOB)
    assert files(tmp_path) == []
    with pytest.raises(FrameUnreadable):
        read_frame(tmp_path / "out.exr")
