# SPDX-License-Identifier: Apache-2.0
"""Makes the documentation's pictures from the demo shot and the embedded model: `docs/make_pictures.py [PART ...]`.

Parts: method, looks, demo (of the demo's delivery: `make demo` first), report (of its page: `fresco report
demo/shot.json` first; Chromium draws it, and `.[test]` drives that). None is all.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fresco_backend import pipeline
from fresco_backend.embedded.looks import LOOKS, MEDIA
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.files.frames import Size, read_frame
from fresco_backend.files.plate import open_plate
from fresco_backend.guides import motion
from fresco_backend.guides.background import moving_background
from fresco_backend.pixels.color import plate_space, to_engine
from fresco_backend.report.delivered import open_delivered
from fresco_backend.report.pictures import flow_pixels, pixels, plane_pixels
from fresco_protocol.shot import Delivery, FrameRange, Look, Plate, Shot

DOCS = Path(__file__).parent
PLATE = str(DOCS.parent / "demo" / "plate" / "boat.####.exr")
KEYFRAMES = (1001, 1005, 1009, 1013)
CELL = 16  # pixels of a token of the decoder's last but one level
GAP, QUALITY = 4, 85
COMBINED = ("an ink drawing at night", "a mosaic in autumn colours", "an oil painting in winter")

Pixels = NDArray[np.uint8]


def row(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one height beside each other, on white."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    return np.concatenate(parts, axis=1)


def save(picture: Pixels | Image.Image, name: str) -> None:
    """Write a picture of the documentation as WebP."""
    path = DOCS / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, quality=QUALITY, method=6)


def plate_images() -> Tensor:
    """The keyframes of the demo as a display shows them: (N, 3, H, W) in [-1, 1]."""
    with closing(open_plate(PLATE, KEYFRAMES)) as plate:
        frames = [plate.read(number) for number in KEYFRAMES]
    return torch.stack([to_engine(frame, plate_space(frame)) for frame in frames])


def draw_method() -> None:
    """Flow, key mask, paths and background of one window."""
    images = plate_images()
    flow = motion.window_flow(images)
    colours = flow_pixels(flow.backward[0], float(flow.backward[0].norm(dim=0).quantile(0.99)))
    hidden = plane_pixels(flow.backward_occlusion[:1])
    save(row([pixels(images[0]), pixels(images[1]), colours, hidden]), "how/flow.webp")
    height, width = (side // CELL for side in images.shape[2:])
    correspondence = Correspondence(frames=images, flow=flow)
    mask = correspondence.key_mask(height, width).view(-1, 1, height, width).float()
    large = mask.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    save(row([pixels(image * (0.35 + 0.65 * one)) for image, one in zip(images, large, strict=True)]), "how/keys.webp")
    save(paths_over(images[0], correspondence, height, width), "how/paths.webp")
    background = moving_background(flow)
    save(row([pixels(image * (0.25 + 0.75 * one)) for image, one in zip(images, background, strict=True)]),
         "how/background.webp")  # fmt: skip


def paths_over(image: Tensor, correspondence: Correspondence, height: int, width: int) -> Image.Image:
    """Every third path over the first keyframe, from its place there to its last one; broken ones left out."""
    paths = correspondence.paths(height, width)
    picture = Image.fromarray(pixels(image)).resize((image.shape[2] * 2, image.shape[1] * 2), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for path in range(0, height * width, 3):
        if bool(paths.linked[path].all()):
            cells = [divmod(int(one), width) for one in paths.index[:, path]]
            points = [((x + 0.5) * 2 * CELL, (y + 0.5) * 2 * CELL) for y, x in cells]
            draw.line(points, fill="white", width=2)
            x, y = points[-1]
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill="orange")
    return picture


def draw_demo() -> None:
    """The demo shot as a moving picture, the plate beside its delivery."""
    with closing(open_delivered(str(DOCS.parent / "demo" / "shot.json"))) as delivered:
        size = Size(*(round(side * 0.75) for side in delivered.size))
        views = (delivered.plate_image, delivered.result_image)
        frames = [Image.fromarray(row([pixels(view(one, size)) for view in views])) for one in delivered.numbers]
    frames[0].save(DOCS / "images" / "harbour.webp", save_all=True, append_images=frames[1:], duration=84, loop=0,
                   quality=60, method=6)  # fmt: skip


def draw_report() -> None:
    """The page of the demo shot in a browser, the wipe over one of its keyframes."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    window = {"width": 1100, "height": 720, "deviceScaleFactor": 1, "mobile": False}
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))) as chrome:
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        chrome.get((DOCS.parent / "out" / "demo" / "harbour.mp4.report.html").as_uri())
        chrome.execute_script(
            "for (const [name, value] of [['frame', arguments[0]], ['wipe', arguments[1]]]) {"
            "  const slider = document.getElementById(name);"
            "  slider.value = value; slider.dispatchEvent(new Event('input')); }", KEYFRAMES[-1] - KEYFRAMES[0], 45,
        )  # fmt: skip
        save(Image.open(io.BytesIO(chrome.get_screenshot_as_png())).convert("RGB"), "report.webp")


def draw_looks(folder: Path) -> None:
    """One frame of the demo in every look, with the prompt below, as two sheets."""
    prompts = {style.phrases[0]: style.name in MEDIA for style in LOOKS.values()}
    stills = {prompt: still(prompt, folder) for prompt in (*prompts, *COMBINED)}
    save(sheet({prompt: stills[prompt] for prompt, medium in prompts.items() if medium}), "looks/media.webp")
    save(sheet({prompt: stills[prompt] for prompt, medium in prompts.items() if not medium}), "looks/grades.webp")
    save(sheet({prompt: stills[prompt] for prompt in COMBINED}), "looks/combined.webp")


def still(prompt: str, folder: Path) -> Pixels:
    """The first frame of the demo by a prompt, (H, W, 3)."""
    shot = Shot(
        plate=Plate(sequence=PLATE, frames=(FrameRange(first=1001, last=1001),)), look=Look(prompt=prompt),
        delivery=Delivery(sequence=str(folder / f"{prompt.replace(' ', '-')}.####.png"), working_size=384),
    )  # fmt: skip
    for _ in pipeline.render(shot):
        pass
    frame = read_frame(Path(shot.delivery.sequence.replace("####", "1001")))
    return pixels(to_engine(frame, plate_space(frame)))


def sheet(stills: dict[str, Pixels], columns: int = 3) -> Image.Image:
    """Pictures in rows, each with its caption below."""
    height, width = next(iter(stills.values())).shape[:2]
    caption, font = 26, ImageFont.load_default(17)
    rows = -(-len(stills) // columns)
    result = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + caption)), "white")
    draw = ImageDraw.Draw(result)
    for place, (text, picture) in enumerate(stills.items()):
        left, top = place % columns * (width + GAP), place // columns * (height + caption)
        result.paste(Image.fromarray(picture), (left, top))
        draw.text((left + 4, top + height + 2), text, fill="black", font=font)
    return result


def main() -> None:
    """Draw the parts that the command line names."""
    parts = {"method": draw_method, "looks": lambda: draw_looks(DOCS.parent / "out" / "docs"), "demo": draw_demo,
             "report": draw_report}  # fmt: skip
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
