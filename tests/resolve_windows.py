# SPDX-License-Identifier: Apache-2.0
"""A strict double of Resolve's windows (UIManager): unknown elements, properties and events are recorded."""
# ruff: noqa: N802, the methods have Resolve's names
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resolve_bridge import Ledger

COMMON = {"ID", "Weight", "Text", "ToolTip", "Enabled"}
KINDS: dict[str, set[str]] = {
    "VGroup": {"Spacing"}, "HGroup": {"Spacing"}, "Label": {"WordWrap", "Alignment"}, "LineEdit": {"PlaceholderText"},
    "TextEdit": {"PlainText", "PlaceholderText"}, "ComboBox": {"CurrentIndex", "CurrentText"},
    "SpinBox": {"Value", "Minimum", "Maximum"}, "Button": set(), "Tree": {"ColumnCount"}, "Timer": {"Interval"}}
EVENTS = {"Button": {"Clicked"}, "ComboBox": {"CurrentIndexChanged"}, "Window": {"Close"}, "Tree": {"ItemClicked"}}


class TreeItem:
    """A row of a tree: texts by column."""

    def __init__(self) -> None:
        self.Text: dict[int, str] = {}


class Element:
    """An element of a window. What a user does is a method in lower case."""

    def __init__(self, ledger: Ledger, kind: str, properties: dict[str, Any], children: list[Any]) -> None:
        unknown = set(properties) - COMMON - KINDS[kind] - {"Minimum", "Maximum"}
        if unknown:
            ledger.violate(f"{kind} has no {sorted(unknown)}")
        self.__dict__.update(ledger=ledger, kind=kind, children=children, choices=[], rows=[], header=None,
                             running=False)
        self.__dict__.update({"Text": "", "Value": properties.get("Minimum", 0), "CurrentIndex": 0, **properties})

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in COMMON | KINDS[self.kind]:
            self.ledger.violate(f"{self.kind} has no {name}")
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "CurrentText" and self.kind == "ComboBox":
            return self.choices[self.CurrentIndex] if self.choices else ""
        self.ledger.violate(f"{self.kind} has no {name}")
        return None

    def AddItem(self, text: str) -> None:
        self.choices.append(text)

    def NewItem(self) -> TreeItem:
        return TreeItem()

    def SetHeaderItem(self, item: TreeItem) -> None:
        self.__dict__["header"] = item

    def AddTopLevelItem(self, item: TreeItem) -> None:
        self.rows.append(item)

    def Clear(self) -> None:
        self.rows.clear()

    def Start(self) -> None:
        self.__dict__["running"] = True

    def Stop(self) -> None:
        self.__dict__["running"] = False

    def choose(self, text: str) -> None:
        """What a user does: picks an entry of a combo box."""
        self.__dict__["CurrentIndex"] = self.choices.index(text)


class Events:
    """`On` of a window or of the dispatcher: handlers by the id of an element and the name of an event."""

    def __init__(self, ledger: Ledger, kinds: dict[str, str], id: str = "") -> None:
        self.__dict__.update(ledger=ledger, kinds=kinds, id=id, handlers={}, inner={})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.inner.setdefault(name, Events(self.ledger, self.kinds, name))

    def __setattr__(self, name: str, handler: Callable[..., Any]) -> None:
        kind = self.kinds.get(self.id)
        if self.id and (kind is None or name not in EVENTS.get(kind, ())):
            self.ledger.violate(f"{self.id or 'dispatcher'} tells of no {name}")
        self.handlers[name] = handler


class Window:
    """A window. shown: whether it is on the screen."""

    def __init__(self, ledger: Ledger, properties: dict[str, Any], children: list[Element]) -> None:
        self.shown = False
        self.items: dict[str, Element] = {}
        self._gather(children)
        kinds = {id: element.kind for id, element in self.items.items()}
        self.On = Events(ledger, {**kinds, str(properties["ID"]): "Window"})

    def _gather(self, children: list[Element]) -> None:
        for child in children:
            if "ID" in child.__dict__:
                self.items[child.ID] = child
            self._gather(child.children)

    def GetItems(self) -> dict[str, Element]:
        return self.items

    def Show(self) -> None:
        self.shown = True

    def Hide(self) -> None:
        self.shown = False

    def click(self, id: str, event: str = "Clicked") -> None:
        """What a user does."""
        self.On.__getattr__(id).handlers[event]({})


class UIManager:
    """Makes elements: ui.Label({...}), ui.VGroup({...}, [...])."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __getattr__(self, kind: str) -> Any:
        if kind not in KINDS:
            self.ledger.violate(f"no element {kind}")
            return None
        return lambda properties, children=(): Element(self.ledger, kind, properties, list(children))


class Dispatcher:
    """The loop of events. script: what happens while the loop runs; then the window is closed."""

    def __init__(self, ui: UIManager, script: Callable[[Dispatcher], None]) -> None:
        self.ui, self.script, self.ended = ui, script, False
        self.On = Events(ui.ledger, {})
        self.window: Window | None = None

    def AddWindow(self, properties: dict[str, Any], children: list[Element]) -> Window:
        self.window = Window(self.ui.ledger, properties, children)
        return self.window

    def RunLoop(self) -> None:
        assert self.window is not None
        assert self.window.shown
        self.script(self)
        assert self.ended, "the loop was never ended"

    def ExitLoop(self) -> None:
        self.ended = True

    def tick(self) -> None:
        """A beat of the timer."""
        self.On.handlers["Timeout"]({})
