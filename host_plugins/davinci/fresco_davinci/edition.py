# SPDX-License-Identifier: Apache-2.0
"""Which Resolve this is, and what it cannot do for scripts: one sentence each, with the way round."""
from __future__ import annotations

from fresco_protocol.document import noun
from fresco_protocol.job import Count

BY_HAND = ('Put a marker named "fresco" with the look as its note on the timeline, at the clip, and choose Workspace > '
           "Scripts > Fresco (OTIO); or export the timeline as OTIO, run `fresco otio`, and import what it writes.")


@noun
class Edition:
    """A release of DaVinci Resolve. version: such as (21, 0, 4)."""

    studio: bool
    version: tuple[Count, ...]

    def __str__(self) -> str:
        name = "DaVinci Resolve Studio" if self.studio else "DaVinci Resolve"
        return f"{name} {'.'.join(map(str, self.version))}"

    @property
    def has_windows(self) -> bool:
        """Whether scripts may open windows (UIManager)."""
        return self.studio or self.version < (19, 1)

    @property
    def runs_python(self) -> bool:
        """Whether the Scripts menu runs Python."""
        return self.studio or self.version < (21, 1)

    @property
    def answers_terminals(self) -> bool:
        """Whether programs outside of Resolve may drive it."""
        return self.studio

    @property
    def limits(self) -> tuple[str, ...]:
        """What this release cannot do, with the way round."""
        lacks = {
            f"This edition runs no Python scripts. {BY_HAND}": not self.runs_python,
            f"This edition opens no windows for scripts. {BY_HAND}": self.runs_python and not self.has_windows,
            "This edition does not answer a terminal: use the Scripts menu inside Resolve.": not self.answers_terminals,
            "This release does not tell which clips are selected (21.0.4 does): the one under the playhead is taken.":
                self.version < (21, 0, 4),
            "This release cannot delete render presets (19.1 can): the one that keeps your Deliver page stays in the "
            "list as \"Before Fresco\".": self.version < (19, 1),
            "This release keeps no metadata of scripts (19.0 does): the shot lies in the clip's marker alone.":
                self.version < (19, 0),
        }
        return tuple(sentence for sentence, lacking in lacks.items() if lacking)
