// Zones drawn over an image by mouse, pen or finger, or edited as numbers; rules beside them. One state, drawn anew.
const form = document.getElementById("rules");
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const words = read("words");
const say = (key, figures = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => figures[name]);
const state = read("present");
const before = JSON.stringify(state);
const canvas = document.getElementById("canvas");
const svg = canvas?.querySelector("svg");
const zones = document.getElementById("zones");
const list = document.getElementById("list");
const writable = !document.getElementById("add-rule").disabled;
const COLOURS = { inspect: "#00a0ff", ignore: "#8a8f98", place: "#e0a100", NG: "#ff2d2d", OK: "#2fbf4f" };
const NUMBERS = ["min_area", "max_area", "min_length", "max_length", "min_count", "max_count"];
const NEAR = 14; // px within which a click is on a corner
let open = null; // the zone that is being drawn
let held = null; // [zone, corner] that is being dragged
const percent = (share) => Number((100 * share).toFixed(2));
const clip = (share) => Math.min(1, Math.max(0, share));

function free(key, taken) { // a name nobody has
  let n = taken.length + 1;
  while (taken.some((one) => one.name === say(key, { n }))) n += 1;
  return say(key, { n });
}

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function paint() {
  if (!svg) return;
  const box = svg.getBoundingClientRect();
  const sides = [8 / (box.width || 1), 8 / (box.height || 1)];
  const drawn = [];
  for (const zone of open ? [...state.zones, open] : state.zones) {
    const points = zone.points.map((point) => point.join(",")).join(" ");
    drawn.push(element(zone === open ? "polyline" : "polygon", {
      points, class: `${zone.kind}${zone === open ? " open" : ""}`, fill: zone.colour, stroke: zone.colour,
    }));
    for (const [x, y] of zone.points) {
      drawn.push(element("ellipse", { cx: x, cy: y, rx: sides[0], ry: sides[1], fill: zone.colour, class: "corner" }));
    }
  }
  svg.replaceChildren(...drawn);
  document.getElementById("unsaved").textContent =
    JSON.stringify(state) === before ? "" : document.getElementById("unsaved").dataset.text;
}

function zoneForm(zone, place) {
  const part = document.getElementById("zone").content.cloneNode(true).firstElementChild;
  const summary = part.querySelector("summary");
  const remove = part.querySelector("[data-do=remove]");
  const label = () => {
    part.querySelector("legend").textContent = zone.name;
    summary.textContent = say("corners", { name: zone.name });
    remove.textContent = say("remove", { name: zone.name });
  };
  part.style.borderLeftColor = zone.colour;
  for (const input of part.querySelectorAll("[data-of]")) {
    const key = input.dataset.of;
    input.value = zone[key];
    input.disabled = !writable;
    input.addEventListener("input", () => {
      if (key === "name") for (const rule of state.rules) if (rule.zone === zone.name) rule.zone = input.value;
      zone[key] = input.value;
      part.style.borderLeftColor = zone.colour;
      label();
      paint();
      if (key === "name") showRules();
    });
  }
  remove.disabled = !writable;
  remove.addEventListener("click", () => {
    state.zones.splice(place, 1);
    for (const rule of state.rules) if (rule.zone === zone.name) delete rule.zone;
    show();
    (zones.querySelector("input") ?? document.getElementById("box")).focus();
  });
  const corners = part.querySelector(".corners");
  zone.points.forEach((point, i) => {
    const line = document.createElement("li");
    ["x", "y"].forEach((axis, side) => {
      const input = document.createElement("input");
      Object.assign(input, { type: "number", min: 0, max: 100, step: "any", value: percent(point[side]), disabled: !writable });
      input.setAttribute("aria-label", say(axis, { name: zone.name, n: i + 1 }));
      input.addEventListener("input", () => {
        if (input.value === "" || !input.validity.valid) return;
        point[side] = clip(input.valueAsNumber / 100);
        paint();
      });
      line.append(input);
    });
    const less = document.createElement("button");
    Object.assign(less, { type: "button", textContent: "✕", disabled: !writable || zone.points.length <= 3 });
    less.setAttribute("aria-label", say("remove_corner", { name: zone.name, n: i + 1 }));
    less.addEventListener("click", () => { zone.points.splice(i, 1); show(place); });
    line.append(less);
    corners.append(line);
  });
  const more = part.querySelector("[data-do=corner]");
  more.disabled = !writable;
  more.addEventListener("click", () => { // in the middle of the side that closes the zone
    const [[x0, y0], [x1, y1]] = [zone.points.at(-1), zone.points[0]];
    zone.points.push([(x0 + x1) / 2, (y0 + y1) / 2]);
    show(place);
    zones.children[place].querySelector("li:last-child input").focus();
  });
  label();
  return part;
}

function ruleForm(rule, place) {
  const part = document.getElementById("rule").content.cloneNode(true).firstElementChild;
  const remove = part.querySelector("[data-do=remove]");
  const label = () => {
    part.querySelector("legend").textContent = rule.name;
    remove.textContent = say("remove", { name: rule.name });
  };
  for (const zone of state.zones) part.querySelector("[data-of=zone]").add(new Option(zone.name, zone.name));
  part.style.borderLeftColor = rule.colour;
  for (const input of part.querySelectorAll("[data-of]")) {
    const key = input.dataset.of;
    input.value = rule[key] ?? "";
    input.disabled = !writable;
    input.addEventListener("input", () => {
      if (key === "verdict" && rule.colour === COLOURS[rule.verdict]) {
        rule.colour = COLOURS[input.value];
        part.querySelector("[data-of=colour]").value = rule.colour;
      }
      if (input.value === "") delete rule[key];
      else rule[key] = NUMBERS.includes(key) ? input.valueAsNumber : input.value;
      part.style.borderLeftColor = rule.colour;
      label();
      paint();
    });
  }
  remove.disabled = !writable;
  remove.addEventListener("click", () => {
    state.rules.splice(place, 1);
    show();
    (list.querySelector("input") ?? document.getElementById("add-rule")).focus();
  });
  label();
  return part;
}

function filled(parent, parts, none) {
  const empty = document.createElement("p");
  empty.className = "muted";
  empty.textContent = say(none);
  parent.replaceChildren(...(parts.length ? parts : [empty]));
}
function showRules() { filled(list, state.rules.map(ruleForm), "rules_none"); }
function show(unfolded = -1) {
  const folds = [...zones.querySelectorAll("details")].map((part) => part.open);
  filled(zones, state.zones.map(zoneForm), "zones_none");
  [...zones.querySelectorAll("details")].forEach((part, i) => { part.open = i === unfolded || Boolean(folds[i]); });
  showRules();
  paint();
}

function drawing(kind) { // begin a zone of a kind, or with none end it
  open = kind ? { name: "", kind, colour: COLOURS[kind], points: [] } : null;
  for (const button of document.querySelectorAll("[data-draw]")) button.setAttribute("aria-pressed", button.dataset.draw === kind);
  document.getElementById("give-up").hidden = !open;
  tell();
  paint();
}
function tell() {
  document.getElementById("finish").hidden = !open || open.points.length < 3;
  document.getElementById("drawing").textContent = open ? say("drawing", { n: open.points.length }) : "";
}
function finish() {
  if (open.points.length < 3) return;
  open.name = free("zone", state.zones);
  state.zones.push(open);
  drawing(null);
  show(state.zones.length - 1);
}

function at(event) {
  const box = svg.getBoundingClientRect();
  return [clip((event.clientX - box.left) / box.width), clip((event.clientY - box.top) / box.height), box];
}
function nearest(points, event) { // the corner under the pointer
  const [x, y, box] = at(event);
  const near = event.pointerType === "touch" ? 2 * NEAR : NEAR;
  return points.findIndex((point) => Math.hypot((point[0] - x) * box.width, (point[1] - y) * box.height) < near);
}
if (svg && writable) {
  svg.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    const [x, y] = at(event);
    if (open) {
      if (open.points.length >= 3 && nearest(open.points, event) === 0) return finish();
      open.points.push([x, y]);
      tell();
      return paint();
    }
    for (const zone of [...state.zones].reverse()) {
      const i = nearest(zone.points, event);
      if (i >= 0) {
        held = [zone, i];
        svg.setPointerCapture(event.pointerId);
        return;
      }
    }
  });
  svg.addEventListener("pointermove", (event) => {
    if (!held) return;
    held[0].points[held[1]] = at(event).slice(0, 2);
    paint();
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { if (held) { held = null; show(); } });
  new ResizeObserver(paint).observe(svg);
}
for (const button of document.querySelectorAll("[data-draw]")) {
  button.disabled ||= !svg;
  button.addEventListener("click", () => drawing(open?.kind === button.dataset.draw ? null : button.dataset.draw));
}
document.getElementById("finish").addEventListener("click", finish);
document.getElementById("give-up").addEventListener("click", () => drawing(null));
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && open) drawing(null); });
document.getElementById("box").addEventListener("click", () => {
  const kind = "inspect";
  const points = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]];
  state.zones.push({ name: free("zone", state.zones), kind, colour: COLOURS[kind], points });
  show(state.zones.length - 1);
  zones.lastElementChild.querySelector("input").focus();
});
document.getElementById("add-rule").addEventListener("click", () => {
  state.rules.push({ name: free("rule", state.rules), verdict: "NG", colour: COLOURS.NG, min_count: 1 });
  show();
  list.lastElementChild.querySelector("input").focus();
});

form.addEventListener("submit", () => { form.elements.rules.value = JSON.stringify(state); });
document.getElementById("preview").addEventListener("click", async () => {
  const box = document.getElementById("previewed");
  box.textContent = box.dataset.wait;
  form.elements.rules.value = JSON.stringify(state);
  try {
    const answer = await fetch(form.dataset.preview, { method: "POST", body: new FormData(form) });
    box.innerHTML = await answer.text();
  } catch (error) { box.textContent = error.message; }
});
show();
