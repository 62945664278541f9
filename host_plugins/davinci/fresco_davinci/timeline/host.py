# SPDX-License-Identifier: Apache-2.0
"""A running Resolve, whose "no" becomes an error at once.

Resolve says "no" by None, False, an empty text or list, never by an exception. `hasattr` is always true there: what a
release has is asked of `dir`.
"""
from __future__ import annotations

from typing import Any

from fresco_davinci.edition import Edition
from fresco_protocol.errors import Busy, FrescoError, HostRefused, UsageError

OLDEST = (18, 6)
DIALOG = "Close the dialog that is open in Resolve, and do it again."
QUIT = "Start Resolve, open the project, and do it again."
Item = Any  # Resolve's objects have no types outside of it


class Host:
    """A running Resolve. busy: a clip is being extracted. notices: what the user should know, each once."""

    def __init__(self, resolve: Any) -> None:
        """Raises Busy when Resolve does not answer, UsageError when it is too old."""
        self.resolve = resolve
        self.edition = edition_of(resolve)
        self.busy = False
        self.notices: list[str] = []

    def granted(self, answer: Any, what: str) -> Any:
        """The answer of a call; raises HostRefused, or Busy while a dialog is open, when it is a "no"."""
        if answer is None or answer is False or (isinstance(answer, (str, list, tuple)) and not answer):
            raise self.refusal(what)
        return answer

    def refusal(self, what: str) -> FrescoError:
        """The error for a call that Resolve did not carry out."""
        if self.gone:
            return HostRefused(f"Resolve has quit, and did not {what}", remedy=QUIT)
        if not isinstance(self.resolve.GetProductName(), str):
            return Busy(f"Resolve does not answer, and did not {what}", remedy=DIALOG)
        return HostRefused(f"Resolve did not {what}", where=str(self.edition),
                           remedy="Look at the timeline and at the Deliver page, and do it again; "
                                  "`fresco resolve doctor` writes a report that can be sent.")

    @property
    def gone(self) -> bool:
        """Whether Resolve has quit: then its objects have no methods any more. Source: AYON's pulse."""
        return self.resolve.GetProductName is None

    @property
    def answers(self) -> bool:
        """Whether Resolve is free: no dialog is open, and it does not render. Raises HostRefused when it has quit."""
        if self.gone:
            raise HostRefused("Resolve has quit", remedy=QUIT)
        return isinstance(self.resolve.GetProductName(), str) and not self.project.IsRenderingInProgress()

    def notice(self, text: str) -> None:
        """Keeps a sentence for the user."""
        if text not in self.notices:
            self.notices.append(text)

    @property
    def project(self) -> Item:
        """The open project."""
        if self.gone:
            raise HostRefused("Resolve has quit", remedy=QUIT)
        manager = self.granted(self.resolve.GetProjectManager(), "show its projects")
        return self.granted(manager.GetCurrentProject(), "open a project")

    @property
    def pool(self) -> Item:
        """The media pool."""
        return self.granted(self.project.GetMediaPool(), "show its media pool")

    @property
    def timeline(self) -> Item:
        """The current timeline."""
        return self.granted(self.project.GetCurrentTimeline(), "show a timeline: open one")


def edition_of(resolve: Any) -> Edition:
    """The release behind the object `resolve`. Raises Busy when it does not answer, UsageError when it is too old."""
    product, version = resolve.GetProductName(), resolve.GetVersion()
    if not isinstance(product, str) or not isinstance(version, (list, tuple)):
        raise Busy("Resolve does not answer", remedy=DIALOG)
    found = Edition(studio=product.strip().endswith("Studio"), version=tuple(int(part) for part in version[:3]))
    if found.version < OLDEST:
        raise UsageError(f"{found} is too old for Fresco", remedy="Update to 18.6 or later, or run `fresco otio`.")
    return found
