// SPDX-License-Identifier: Apache-2.0
// The viewer of a report: which two pictures are shown, how, and of which frame.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const stage = byId("stage"), frame = byId("frame"), wipe = byId("wipe"), left = byId("left"), right = byId("right");
const buttons = [...document.querySelectorAll("button[data-view]")];
const shown = data.versions[0].shown;
let view = "wipe";

// Sources that can stand on either side: the plate, and each delivery.
const sources = [["plate", 0, "plate"], ...data.versions.map((version, place) => [version.name, place, "result"])];
for (const select of [left, right]) {
  sources.forEach(([name], place) => select.append(new Option(name, place)));
}
left.value = data.versions.length > 1 ? 1 : 0;
right.value = data.versions.length > 1 ? 2 : 1;

const viewsAt = (version, number) => data.versions[version].views[number] || {};
const figuresOf = (number) => data.versions.map((version) => version.figures.find((one) => one.frame === number));
const fixed = (value, digits) => (value === null ? "–" : value.toFixed(digits));

function show(image, caption, [name, version, kind], number) {
  const url = viewsAt(version, number)[kind];
  image.hidden = !url;
  if (url && image.src !== url) image.src = url;
  image.alt = `${name}, frame ${number}`;
  caption.textContent = url ? name : `no ${kind} of frame ${number}`;
}

function told(number) {
  return figuresOf(number).map((one, place) => {
    const name = data.versions.length > 1 ? `${data.versions[place].name}: ` : "";
    if (one.warp_error === null) return `${name}no frame before this one to compare with; contrast ${fixed(one.contrast, 2)}`;
    const occluded = one.occlusion === null ? "–" : `${(100 * one.occlusion).toFixed(1)} %`;
    return `${name}warp error ${fixed(one.warp_error, 2)}, flicker ${fixed(one.flicker, 2)}, occluded ${occluded}, contrast ${fixed(one.contrast, 2)}`;
  }).join(" · ");
}

function draw() {
  const number = shown[frame.value];
  const single = !["wipe", "blink", "beside"].includes(view);
  stage.dataset.mode = single ? "one" : view;
  byId("sides").hidden = single;
  wipe.disabled = view !== "wipe";
  stage.style.setProperty("--seam", `${wipe.value}%`);
  show(byId("under"), byId("under-name"), single ? [view, 0, view] : sources[left.value], number);
  show(byId("over"), byId("over-name"), sources[right.value], number);
  const kind = figuresOf(number)[0].keyframe ? "keyframe" : "in-between";
  byId("number").textContent = `${number} (${kind})`;
  frame.setAttribute("aria-valuetext", `frame ${number}, ${kind}`);
  byId("told").textContent = told(number);
  const { left: start, right: end, first, last } = data.axis;
  const place = start + (end - start) * (number - first) / (last - first);
  document.querySelectorAll(".cursor").forEach((cursor) => { cursor.style.left = `${100 * place}%`; });
}

for (const button of buttons) {
  const kind = button.dataset.view;
  const single = ["flow", "occlusion", "matte"].includes(kind);
  button.disabled = single && !shown.some((number) => viewsAt(0, number)[kind]);
  button.addEventListener("click", () => {
    view = kind;
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    draw();
  });
}
[frame, wipe, left, right].forEach((input) => input.addEventListener("input", draw));

// The seam also goes where the picture is touched.
function drag(event) {
  if (view !== "wipe" || !event.buttons) return;
  const box = stage.getBoundingClientRect();
  wipe.value = 100 * (event.clientX - box.left) / box.width;
  draw();
}
stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
stage.addEventListener("pointermove", drag);

// Plays the frames that are shown, each for as long as those last that it stands for.
let timer = null;
function play(on) {
  clearTimeout(timer);
  timer = on ? setTimeout(step, 1000 * pace(Number(frame.value)) / data.rate) : null;
  byId("play").setAttribute("aria-pressed", String(on));
  byId("play").textContent = on ? "Stop" : "Play";
  byId("told").setAttribute("aria-live", on ? "off" : "polite");
}
const pace = (place) => (place + 1 < shown.length ? shown[place + 1] - shown[place] : 1);
function step() {
  frame.value = (Number(frame.value) + 1) % shown.length;
  draw();
  play(true);
}
byId("play").addEventListener("click", () => play(timer === null));

shown.forEach((number, place) => {
  const item = document.createElement("li"), button = document.createElement("button");
  const keyframe = figuresOf(number)[0].keyframe;
  button.type = "button";
  button.className = keyframe ? "key" : "";
  button.append(`${number}${keyframe ? " keyframe" : ""}`);
  for (const [name, version, kind] of [...sources, ["matte", 0, "matte"]]) {
    const url = viewsAt(version, number)[kind];
    if (url) button.append(Object.assign(new Image(), { src: url, alt: `${name}, frame ${number}`, loading: "lazy" }));
  }
  button.addEventListener("click", () => { frame.value = place; draw(); byId("viewer-title").scrollIntoView(); });
  item.append(button);
  byId("sheet").append(item);
});
draw();
