-- SPDX-License-Identifier: Apache-2.0
-- Workspace > Scripts > Fresco (OTIO), for editions whose scripts have no windows or no Python: exports the timeline as
-- OTIO, lets `fresco otio` stylise the clips that a marker named "fresco" points to, and imports what it writes.
-- A marker's note is the prompt. Frames come to the folder Fresco of the user's home, each run's to one of its own.

local windows = package.config:sub(1, 1) == "\\"
local home = os.getenv("HOME") or os.getenv("USERPROFILE") or ""

local function say(text) print("Fresco: " .. text) end

local function path_of(...) return table.concat({...}, windows and "\\" or "/") end

-- One word of a command line. cmd has no way to quote a quote, and expands %: to `fresco otio` a ? is any letter.
local function quoted(word)
    if windows then return '"' .. word:gsub('[%%"\r\n]', "?") .. '"' end
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function fusion_folders()
    local product = path_of("Blackmagic Design", "DaVinci Resolve")
    if windows then
        return {path_of(os.getenv("APPDATA") or home, product, "Support", "Fusion"),
                path_of(os.getenv("PROGRAMDATA") or "C:\\ProgramData", product, "Fusion")}
    end
    return {path_of(home, "Library", "Application Support", product, "Fusion"),
            path_of("/Library", "Application Support", product, "Fusion"),
            path_of(home, ".local", "share", "DaVinciResolve", "Fusion"), "/opt/resolve/Fusion", "/home/resolve/Fusion"}
end

-- How `fresco` is called here: the words that the installer noted, one a line, else the search path.
local function fresco()
    local words = {}
    for _, folder in ipairs(fusion_folders()) do
        local file = io.open(path_of(folder, "Modules", "Fresco", "command.txt"))
        if file then
            for line in file:lines() do words[#words + 1] = quoted(line) end
            file:close()
            return table.concat(words, " ")
        end
    end
    return "fresco"
end

local function scratch(name)
    local folder = os.getenv("TMPDIR") or os.getenv("TEMP") or "/tmp"
    return path_of(folder, "fresco-" .. os.time() .. "-" .. name)
end

-- Where the frames come to: they stay there as long as the imported timeline shall show them.
local function media(timeline)
    return path_of(home, "Fresco", (timeline:GetName():gsub("[^%w-]+", "_")), "otio-" .. os.time())
end

-- The topmost clip at an absolute frame that is switched on, on a track that is enabled.
local function clip_at(timeline, frame)
    for track = timeline:GetTrackCount("video"), 1, -1 do
        if timeline:GetIsTrackEnabled("video", track) then
            for _, item in ipairs(timeline:GetItemListInTrack("video", track) or {}) do
                local inside = item:GetStart() <= frame and frame < item:GetStart() + item:GetDuration()
                if inside and item:GetClipEnabled() ~= false then return item end
            end
        end
    end
end

-- {clip name, prompt, id} for each marker named "fresco", in their order. Markers count from the timeline's start.
local function orders(timeline)
    local found, frames = {}, {}
    local markers = timeline:GetMarkers() or {}
    for frame, marker in pairs(markers) do
        if tostring(marker.name):lower() == "fresco" then frames[#frames + 1] = frame end
    end
    table.sort(frames)
    for _, frame in ipairs(frames) do
        local item = clip_at(timeline, timeline:GetStartFrame() + frame)
        if item and markers[frame].note ~= "" then
            found[#found + 1] = {item:GetName(), markers[frame].note, item:GetUniqueId()}
        end
    end
    return found
end

-- A name that a marked clip shares with one that has no marker, or another prompt: `fresco otio` goes by names.
local function shared_name(timeline, orders)
    local prompts, named = {}, {}
    for _, order in ipairs(orders) do
        named[order[1]] = named[order[1]] or order[2]
        prompts[order[3]] = order[2]
    end
    for track = 1, timeline:GetTrackCount("video") do
        for _, item in ipairs(timeline:GetItemListInTrack("video", track) or {}) do
            local name = item:GetName()
            if named[name] and prompts[item:GetUniqueId()] ~= named[name] then return name end
        end
    end
end

-- The name as a pattern that matches nothing else: `fresco otio` reads *, ? and [ as shells do.
local function pattern_of(name) return (name:gsub("[%*%?%[]", "[%0]")) end

local function json_text(text)
    local escaped = text:gsub('[%c"\\]', function(letter) return string.format("\\u%04x", letter:byte()) end)
    return '"' .. escaped .. '"'
end

-- Prompts go through a file, not through a shell.
local function write_looks(path, orders)
    local entries = {}
    for _, order in ipairs(orders) do
        entries[#entries + 1] = json_text(pattern_of(order[1])) .. ": {\"prompt\": " .. json_text(order[2]) .. "}"
    end
    local file = io.open(path, "w")
    if not file then return false end
    file:write("{" .. table.concat(entries, ", ") .. "}\n")
    return file:close()
end

-- A pattern as a word: a command line of Windows has no letters beyond ASCII in the UTF-8 that Resolve gives.
local function quoted_pattern(pattern)
    return quoted(windows and pattern:gsub("[\194-\244][\128-\191]*", "?") or pattern)
end

-- PYTHONHOME may choose Resolve's Python, and no other one starts with it.
local function command_line(orders, paths)
    local words = {fresco(), "otio", quoted(paths.before), "-o", quoted(paths.after), "--looks", quoted(paths.looks),
                   "--media", quoted(paths.media), "--clips"}
    for _, order in ipairs(orders) do words[#words + 1] = quoted_pattern(pattern_of(order[1])) end
    local line = table.concat(words, " ")
    return windows and '"set "PYTHONHOME=" & ' .. line .. '"' or "unset PYTHONHOME; " .. line
end

-- A name that no timeline of the project has yet.
local function free_name(project, name)
    local taken, number, free = {}, 1, name
    for index = 1, project:GetTimelineCount() do taken[project:GetTimelineByIndex(index):GetName()] = true end
    while taken[free] do
        number = number + 1
        free = name .. " " .. number
    end
    return free
end

local function stylised(project, timeline, kinds, orders)
    local paths = {before = scratch("timeline.otio"), after = scratch("result.otio"), looks = scratch("looks.json"),
                   media = media(timeline)}
    if not timeline:Export(paths.before, kinds.EXPORT_OTIO, kinds.EXPORT_NONE) then
        return say("Resolve did not export the timeline as OTIO.")
    end
    if not write_looks(paths.looks, orders) then return say("cannot write " .. paths.looks) end
    local line = command_line(orders, paths)
    say(line)
    local ended = os.execute(line)
    if ended ~= 0 and ended ~= true then return say("the command failed; run it in a terminal to see why.") end
    local name, pool = free_name(project, timeline:GetName() .. " FRESCO"), project:GetMediaPool()
    if not pool:ImportTimelineFromFile(paths.after, {timelineName = name, importSourceClips = true}) then
        return say("Resolve did not import " .. paths.after .. ": import it by hand (File > Import > Timeline).")
    end
    say("the timeline is imported as " .. name .. "; its frames are in " .. paths.media)
end

local function main(application)
    local project = application:GetProjectManager():GetCurrentProject()
    local timeline = project and project:GetCurrentTimeline()
    if not timeline then return say("open a timeline first.") end
    local found = orders(timeline)
    if #found == 0 then
        return say('put a marker named "fresco" on the timeline, at a clip, with the look as its note: a mosaic.')
    end
    local shared = shared_name(timeline, found)
    if shared then
        return say('several clips are named "' .. shared .. '", and they would all take one look: give those that you '
                   .. "mean a name of their own, or mark them all with the same note.")
    end
    stylised(project, timeline, application, found)
end

main(resolve or Resolve())
