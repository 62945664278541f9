# SPDX-License-Identifier: Apache-2.0
"""Every call that Fresco makes of Resolve's API: which release has it, what for, and where its meaning is known from.

`markdown()` is the table in README.md; the tests hold code, table, README and the documented methods together, and the
doctor compares the table with what a machine's Resolve has.

Sources: D, Resolve's own scripting README (24 Jul 2026, 21.0.4). A, AYON's integration. M, the ledger of
davinci-resolve-mcp (19.1.3 to 21.0). N, SendToNuke. B, Blackmagic's forum. C, custom of scripts in use.
"""
from __future__ import annotations

from fresco_protocol.document import noun

OLDEST = "18.1.2"  # the first release whose methods are on record; Fresco asks for 18.6


@noun
class Call:
    """One method. since: the first release that is known to have it; below Fresco's oldest it is always there.

    seen: whether its meaning was observed on a real Resolve by this project.
    """

    owner: str
    name: str
    purpose: str
    source: str
    since: str = OLDEST
    seen: bool = False


def _calls(owner: str, *rows: tuple[str, ...]) -> tuple[Call, ...]:
    return tuple(Call(owner=owner, name=row[0], purpose=row[1], source=row[2], since=row[3] if len(row) > 3 else OLDEST)
                 for row in rows)


CALLS: tuple[Call, ...] = (
    *_calls(
        "Resolve",
        ("GetProductName", "edition; also tells a dialog, which answers nothing", "D, M"),
        ("GetVersion", "release", "D"),
        ("GetProjectManager", "", "D"),
        ("GetCurrentPage", "to come back to it", "D"),
        ("OpenPage", "back to the user's page; clips are deleted on the Edit page only", "D, M"),
    ),
    *_calls("ProjectManager", ("GetCurrentProject", "", "D")),
    *_calls(
        "Project",
        ("GetName", "names the folder; may be empty or a placeholder", "D"),
        ("GetMediaPool", "", "D"),
        ("GetCurrentTimeline", "", "D"),
        ("SetCurrentTimeline", "appends go to the current timeline only; back to the user's", "D, M"),
        ("GetTimelineCount", "finds the clip's timeline when the user went to another", "D"),
        ("GetTimelineByIndex", "the same, from 1", "D"),
        ("GetSetting", "colorScienceMode", "D, A"),
        ("GetRenderPresetList", "", "D"),
        ("SaveAsNewRenderPreset", "keeps the Deliver page, whose settings cannot be read", "D"),
        ("LoadRenderPreset", "a base with video, then the user's settings again", "D, A"),
        ("DeleteRenderPreset", "of our own preset", "D", "19.1"),
        ("GetCurrentRenderFormatAndCodec", "to restore it", "D"),
        ("GetCurrentRenderMode", "to restore it", "D"),
        ("GetRenderCodecs", "{label: id} of a format", "D"),
        ("SetCurrentRenderFormatAndCodec", "takes ids, not labels", "D, M"),
        ("SetCurrentRenderMode", "1 is one clip", "D"),
        ("SetRenderSettings", "MarkIn and MarkOut absolute and inclusive; merges into the loaded preset", "D, A, M"),
        ("AddRenderJob", "an empty text is a refusal", "D"),
        ("StartRendering", "with our own job id only", "D"),
        ("IsRenderingInProgress", "", "D"),
        ("GetRenderJobStatus", "percentage, and how often its word changed: words are in the user's language", "D, M"),
        ("StopRendering", "when our own job runs and the user cancels", "D"),
        ("DeleteRenderJob", "our own job id only", "D"),
    ),
    *_calls(
        "MediaPool",
        ("GetRootFolder", "", "D"),
        ("GetCurrentFolder", "to come back to it", "D"),
        ("AddSubFolder", "the bin Fresco", "D"),
        ("SetCurrentFolder", "imports land in the current bin", "D, A"),
        ("ImportMedia", "a sequence by pattern, StartIndex and EndIndex", "D, A"),
        ("AppendToTimeline", "recordFrame absolute, endFrame exclusive as reported: read back, and the other way tried",
         "D, M, N"),
        ("DeleteClips", "takes back what we imported", "D"),
        ("GetClipMatteList", "mattes attached to a clip", "D"),
        ("CreateEmptyTimeline", "the doctor's scratch timeline", "D"),
        ("DeleteTimelines", "takes it away", "D"),
    ),
    *_calls("Folder", ("GetName", "", "D"), ("GetSubFolderList", "finds the bin Fresco", "D")),
    *_calls(
        "MediaPoolItem",
        ("GetUniqueId", "finds the item that shows it", "D"),
        ("GetClipProperty", "File Path, Start, End, Frames, FPS, Resolution, Input Color Space", "D, M"),
        ("SetClipProperty", "FPS (sequences come in at the project's rate); Input Color Space under colour management",
         "D, A, B"),
        ("SetThirdPartyMetadata", "record and prompt", "D", "19.0"),
    ),
    *_calls(
        "Timeline",
        ("GetUniqueId", "", "D"),
        ("GetName", "", "D"),
        ("GetStartFrame", "absolute", "D"),
        ("GetStartTimecode", "", "D"),
        ("GetSetting", "timelineFrameRate (a number, or \"29.97 DF\"), timelineDropFrameTimecode, resolution, colour "
         "spaces", "D, A, C"),
        ("GetTrackCount", "may be stale until the page changes", "D, M"),
        ("AddTrack", "on top", "D", "18.5.0"),
        ("GetTrackName", "", "D"),
        ("SetTrackName", "FRESCO", "D"),
        ("GetIsTrackEnabled", "to restore it", "D", "18.5.0"),
        ("SetTrackEnable", "the clip alone is seen while it is rendered", "D, A", "18.5.0"),
        ("GetIsTrackLocked", "", "D", "18.5.0"),
        ("GetItemListInTrack", "None for an empty track", "D, M"),
        ("GetCurrentVideoItem", "topmost enabled clip at the playhead", "D"),
        ("GetSelectedClips", "", "D", "21.0.4"),
        ("GetCurrentTimecode", "", "D"),
        ("SetCurrentTimecode", "restores the playhead", "D"),
        ("GetMarkInOut", "In and Out, from the timeline's start: a render's range replaces them", "D, M", "19.1"),
        ("SetMarkInOut", "restores them", "D, M", "19.1"),
        ("ClearMarkInOut", "the same where there were none", "D", "19.1"),
        ("DeleteClips", "takes back a clip that landed wrong", "D", "18.5.0"),
        ("DeleteTrack", "takes back a track of ours that stayed empty", "D", "18.5.0"),
        ("Export", "as OTIO: tells speed and direction of a clip, which no getter does", "D, A"),
    ),
    *_calls(
        "TimelineItem",
        ("GetUniqueId", "", "D"),
        ("GetName", "", "D"),
        ("SetName", "without : and /, which fail silently", "D, M", "20.2"),
        ("GetStart", "absolute", "D"),
        ("GetEnd", "doctor", "D"),
        ("GetDuration", "", "D"),
        ("GetLeftOffset", "frames of the media before the clip", "D, A"),
        ("GetRightOffset", "frames after it", "D, A"),
        ("GetSourceStartFrame", "tells a changed speed; may be off by one", "D, M", "19.0"),
        ("GetSourceEndFrame", "the same", "D, M", "19.0"),
        ("GetMediaPoolItem", "None for titles, generators, compound clips", "D, M"),
        ("GetProperty", "Speed, where there is one; transform, to copy it", "D, C"),
        ("SetProperty", "copies the transform", "D"),
        ("GetFusionCompCount", "", "D"),
        ("GetClipEnabled", "one that is switched off is rendered black", "D", "18.5.0"),
        ("CopyGrades", "the look lies under the grade", "D, N"),
        ("SetClipColor", "one of sixteen names", "D"),
        ("GetMarkers", "", "D"),
        ("AddMarker", "names the record; whether a marker counts from the clip or from its media is not known", "D"),
        ("DeleteMarkerAtFrame", "our own marker of the version before", "D"),
        ("AddTake", "range as AppendToTimeline's: read back, and the other way tried", "D, A"),
        ("GetTakesCount", "", "D"),
        ("GetSelectedTakeIndex", "0 without takes", "D"),
        ("SelectTakeByIndex", "", "D, A"),
        ("DeleteTakeByIndex", "takes back a take that would move the clip", "D"),
    ),
)


def markdown() -> str:
    """The table for README.md."""
    rows = [f"| {call.owner} | {call.name} | {call.since} | {call.purpose} | {call.source} | "
            f"{'yes' if call.seen else 'not yet'} |" for call in CALLS]
    return "\n".join(["| object | call | since | for, and what must be known | source | seen on a real Resolve |",
                      "|---|---|---|---|---|---|", *rows])
