# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface in other languages. Blender looks the English texts up here; a new language is one more table."""
from __future__ import annotations

import bpy

GERMAN = {
    "Stylise": "Stilisieren",
    "Test Frame": "Probebild",
    "New Version": "Neue Version",
    "Snap to Source": "An der Quelle ausrichten",
    "Looks": "Stile",
    "Models": "Modelle",
    "Prompt": "Beschreibung",
    "Negative": "Ausschließen",
    "Strength": "Stärke",
    "Set Strength": "Stärke festlegen",
    "Control": "Strukturvorgabe",
    "Keyframes": "Schlüsselbilder",
    "Coherence": "Zusammenhalt",
    "Frame by Frame": "Bild für Bild",
    "Matte": "Matte",
    "Queue": "Warteschlange",
    "No jobs yet": "Noch keine Aufträge",
    "Clear Ended": "Beendete entfernen",
    "Write a prompt first": "Schreiben Sie zuerst eine Beschreibung",
    "Select a result strip of Fresco first": "Wählen Sie zuerst einen Ergebnisstreifen von Fresco",
    "Select a strip in the sequencer first": "Wählen Sie zuerst einen Streifen im Sequenzer",
    "Choose a matte, or set Matte to None": "Wählen Sie eine Matte, oder stellen Sie Matte auf Keine",
    "Put the playhead on a selected strip": "Setzen Sie den Abspielkopf auf einen gewählten Streifen",
    "Start Server": "Server starten",
    "Stop Server": "Server beenden",
    "Install Backend": "Backend installieren",
}
CONTEXTS = ("*", "Operator")


def register() -> None:
    """Tells Blender the tables."""
    table = {(context, english): german for english, german in GERMAN.items() for context in CONTEXTS}
    bpy.app.translations.register(__package__, {"de_DE": table, "de": table})


def unregister() -> None:
    """Takes them away."""
    bpy.app.translations.unregister(__package__)
