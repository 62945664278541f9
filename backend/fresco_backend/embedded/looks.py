# SPDX-License-Identifier: Apache-2.0
"""The looks that the embedded model knows, each a parametric styliser that paints its training targets."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fresco_backend.embedded import draw, grade, paint
from fresco_backend.embedded.lattice import Picture, blur

Render = Callable[[Picture, float, np.random.Generator], Picture]


class LookKind(enum.Enum):
    """What a look changes: nothing, how the picture is made, or its colour and light."""

    IDENTITY = "identity"
    MEDIUM = "medium"
    GRADE = "grade"


class LookName(enum.Enum):
    """The looks by name; the value is what command lines and files write."""

    PHOTO = "photo"
    WATERCOLOUR = "watercolour"
    OIL = "oil"
    INK = "ink"
    PENCIL = "pencil"
    CHARCOAL = "charcoal"
    COMIC = "comic"
    CEL = "cel"
    MOSAIC = "mosaic"
    STAINED_GLASS = "stained-glass"
    IMPRESSIONIST = "impressionist"
    CYANOTYPE = "cyanotype"
    SEPIA = "sepia"
    NIGHT = "night"
    WINTER = "winter"
    AUTUMN = "autumn"
    INFRARED = "infrared"


@dataclass(frozen=True, kw_only=True)
class LookStyle:
    """One look.

    phrases: noun phrases that name a picture of this look ("a watercolour painting").
    manners: what may follow a noun ("in watercolour", "at night").
    render: picture (H, W, 3) float32, display-referred sRGB in [0, 1]; amount in [0.6, 1.4]; generator -> same shape.
    monochrome: the medium throws colour away, so that a grade is laid over it as a wash.
    """

    name: LookName
    kind: LookKind
    phrases: tuple[str, ...]
    manners: tuple[str, ...]
    render: Render
    monochrome: bool = False

    def __post_init__(self) -> None:
        if not self.phrases or not self.manners:
            raise ValueError(f"look {self.name.value} needs at least one phrase and one manner for its captions")


def _photo(picture: Picture, _amount: float, _rng: np.random.Generator) -> Picture:
    return picture.copy()


_MEDIUM, _GRADE = LookKind.MEDIUM, LookKind.GRADE
_STYLES = (
    LookStyle(
        name=LookName.PHOTO, kind=LookKind.IDENTITY, render=_photo,
        phrases=("a photo", "a photograph", "a real photo"),
        manners=("in real life", "photographed", "as a photo"),
    ),
    LookStyle(
        name=LookName.WATERCOLOUR, kind=_MEDIUM, render=paint.watercolour,
        phrases=("a watercolour painting", "a watercolor painting", "a watercolour", "an aquarelle"),
        manners=("in watercolour", "watercolor on paper", "painted in watercolor", "watercolour style"),
    ),
    LookStyle(
        name=LookName.OIL, kind=_MEDIUM, render=paint.oil,
        phrases=("an oil painting", "an oil painting with visible brush strokes", "a thick impasto painting"),
        manners=("in oil", "oil on canvas", "painted in oil with visible strokes", "oil painting style"),
    ),
    LookStyle(
        name=LookName.INK, kind=_MEDIUM, render=draw.ink, monochrome=True,
        phrases=("an ink drawing", "an ink and wash drawing", "a black ink painting", "a sumi ink painting"),
        manners=("in ink", "ink and wash on paper", "drawn in black ink", "ink style"),
    ),
    LookStyle(
        name=LookName.PENCIL, kind=_MEDIUM, render=draw.pencil, monochrome=True,
        phrases=("a pencil drawing", "a pencil sketch", "a graphite drawing"),
        manners=("in pencil", "graphite on white paper", "drawn in pencil with hatching", "pencil style"),
    ),
    LookStyle(
        name=LookName.CHARCOAL, kind=_MEDIUM, render=draw.charcoal, monochrome=True,
        phrases=("a charcoal drawing", "a charcoal sketch", "a rough charcoal drawing"),
        manners=("in charcoal", "charcoal on rough paper", "drawn in charcoal", "charcoal style"),
    ),
    LookStyle(
        name=LookName.COMIC, kind=_MEDIUM, render=draw.comic,
        phrases=("a comic", "a comic book panel", "a pop art print", "a comic drawing with halftone dots"),
        manners=("in a comic book", "comic style", "with halftone dots and ink lines", "as pop art"),
    ),
    LookStyle(
        name=LookName.CEL, kind=_MEDIUM, render=draw.cel,
        phrases=("a cartoon", "an anime frame", "a flat cel drawing", "a cel shaded cartoon"),
        manners=("in flat colours", "cel shaded", "anime style", "cartoon style with clean lines"),
    ),
    LookStyle(
        name=LookName.MOSAIC, kind=_MEDIUM, render=paint.mosaic,
        phrases=("a mosaic", "a roman mosaic", "a mosaic of small tiles", "a tile mosaic"),
        manners=("in mosaic", "made of small stone tiles", "mosaic style", "as a mosaic"),
    ),
    LookStyle(
        name=LookName.STAINED_GLASS, kind=_MEDIUM, render=paint.stained_glass,
        phrases=("a stained glass window", "stained glass", "a leaded glass window"),
        manners=("in stained glass", "made of coloured glass with lead lines", "stained glass style"),
    ),
    LookStyle(
        name=LookName.IMPRESSIONIST, kind=_MEDIUM, render=paint.impressionist,
        phrases=("an impressionist painting", "a painting with dabs of pure colour", "a painting by monet"),
        manners=("in impressionist style", "painted in dabs of pure color", "impressionism"),
    ),
    LookStyle(
        name=LookName.CYANOTYPE, kind=_GRADE, render=grade.cyanotype,
        phrases=("a cyanotype", "a cyanotype print", "a blueprint", "a prussian blue print"),
        manners=("in cyanotype", "in prussian blue", "cyanotype style", "in blue and white"),
    ),
    LookStyle(
        name=LookName.SEPIA, kind=_GRADE, render=grade.sepia,
        phrases=("a sepia photo", "an old sepia photograph", "a vintage film photo"),
        manners=("in sepia", "on old film", "sepia toned", "in brown vintage tones"),
    ),
    LookStyle(
        name=LookName.NIGHT, kind=_GRADE, render=grade.night,
        phrases=("a neon night scene", "a night scene with neon light", "a dark neon picture"),
        manners=("at night", "in neon light", "at night with glowing neon", "in the dark"),
    ),
    LookStyle(
        name=LookName.WINTER, kind=_GRADE, render=grade.winter,
        phrases=("a winter scene", "a snowy winter scene", "a cold picture with snow"),
        manners=("in winter", "in the snow", "covered with snow", "in cold snowy weather"),
    ),
    LookStyle(
        name=LookName.AUTUMN, kind=_GRADE, render=grade.autumn,
        phrases=("an autumn scene", "a warm autumn picture", "an orange autumn scene"),
        manners=("in autumn", "in fall with orange leaves", "in warm autumn light", "in autumn colours"),
    ),
    LookStyle(
        name=LookName.INFRARED, kind=_GRADE, render=grade.infrared,
        phrases=("an infrared photo", "an infrared photograph", "a false colour infrared picture"),
        manners=("in infrared", "on infrared film", "infrared style", "in pink false colour"),
    ),
)

LOOKS: Mapping[LookName, LookStyle] = MappingProxyType({style.name: style for style in _STYLES})
MEDIA = tuple(style.name for style in _STYLES if style.kind is LookKind.MEDIUM)
GRADES = tuple(style.name for style in _STYLES if style.kind is LookKind.GRADE)


def all_combinations() -> list[tuple[LookName, ...]]:
    """Every look by itself, then every medium over every grade."""
    return [(name,) for name in LOOKS] + [(medium, graded) for medium in MEDIA for graded in GRADES]


def render_combination(
    names: Sequence[LookName], picture: Picture, amount: float, rng: np.random.Generator
) -> Picture:
    """`picture` (H, W, 3) in one look, or in a medium over a grade, whatever their order in `names`.

    The grade comes first and the medium is made of the graded picture. A monochrome medium is drawn from the
    picture itself and the grade becomes its paper and wash. Raises ValueError for any other choice of looks.
    """
    medium, graded = split_combination(names)
    if graded is None:
        return medium.render(picture, amount, rng)
    ground = graded.render(picture, amount, rng)
    if not medium.monochrome:
        return medium.render(ground, amount, rng)
    wash = np.clip(0.18 + 0.95 * blur(ground, 1.5), 0, 1)
    return np.asarray(medium.render(picture, amount, rng) * wash, np.float32)


def split_combination(names: Sequence[LookName]) -> tuple[LookStyle, LookStyle | None]:
    """The look that is rendered last, and the grade below it or None; raises ValueError if they do not combine."""
    styles = [LOOKS[name] for name in names]
    if len(styles) == 1:
        return styles[0], None
    by_kind = {style.kind: style for style in styles}
    if len(styles) != 2 or set(by_kind) != {LookKind.MEDIUM, LookKind.GRADE}:
        given = ", ".join(name.value for name in names) or "none"
        raise ValueError(f"looks ({given}) do not combine: give one look, or a medium and a grade")
    return by_kind[LookKind.MEDIUM], by_kind[LookKind.GRADE]
