// The threshold's line: dragged, or moved by arrow keys; what would change is counted here, the promise asked for.
const chart = document.getElementById("chart");
const line = document.getElementById("line");
const grip = document.getElementById("grip");
const form = document.getElementById("chosen");
const input = form.elements.threshold;
const reset = document.getElementById("reset");
const promise = document.getElementById("promise");
const scores = JSON.parse(document.getElementById("scores").textContent);
const ticks = [...chart.querySelectorAll(".tick")].map((tick) => [Number(tick.dataset.position), Number(tick.dataset.score)]);
const perPercent = (ticks.at(-1)[1] - ticks[0][1]) / (ticks.at(-1)[0] - ticks[0][0]);
const start = Number(input.value);
const least = Number(line.getAttribute("aria-valuemin"));
const most = Number(line.getAttribute("aria-valuemax"));
const writable = !input.disabled;
const short = (value) => Number(value.toPrecision(4));
let value = start;
let asked = 0;

function above(sorted, limit) { // how many of ascending numbers are above `limit`
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return sorted.length - low;
}

function show() {
  const percent = ticks[0][0] + (value - ticks[0][1]) / perPercent;
  line.style.left = `${Math.min(99, Math.max(1, percent))}%`;
  grip.textContent = short(value);
  line.setAttribute("aria-valuenow", short(value));
  if (document.activeElement !== input) input.value = value;
  for (const bar of chart.querySelectorAll(".bar")) {
    const ng = Number(bar.dataset.middle) > value;
    bar.classList.toggle("ng", ng);
    bar.classList.toggle("ok", !ng);
  }
  for (const row of document.querySelectorAll("#effects [data-scores]")) {
    const all = scores[row.dataset.scores];
    const high = above(all, value);
    const count = row.dataset.side === "above" ? high : all.length - high;
    const cell = row.querySelector(".then");
    cell.textContent = `${count.toLocaleString("en")} / ${all.length.toLocaleString("en")}`;
    cell.classList.toggle("changed", cell.textContent !== row.cells[1].textContent);
  }
  reset.hidden = value === start;
}

async function ask() {
  const mine = ++asked;
  const url = new URL(chart.dataset.url, location.href);
  if (value !== start) url.searchParams.set("threshold", value);
  const answer = await fetch(url);
  if (answer.ok && mine === asked) promise.textContent = (await answer.json()).promise;
}

let waiting;
function move(to) {
  value = Math.min(most, Math.max(least, to));
  if (value !== start) value = short(value);
  show();
  clearTimeout(waiting);
  waiting = setTimeout(ask, 200);
}

function drag(event) {
  const box = chart.querySelector("svg").getBoundingClientRect();
  move(ticks[0][1] + ((100 * (event.clientX - box.left)) / box.width - ticks[0][0]) * perPercent);
}

if (writable) {
  chart.querySelector("svg").addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse") { drag(event); line.focus(); } });
  line.addEventListener("pointerdown", (event) => { line.setPointerCapture(event.pointerId); event.preventDefault(); line.focus(); });
  line.addEventListener("pointermove", (event) => { if (line.hasPointerCapture(event.pointerId)) drag(event); });
  line.addEventListener("keydown", (event) => {
    const step = Math.abs(perPercent) * (event.shiftKey ? 0.1 : 1);
    const to = {
      ArrowLeft: value - step, ArrowDown: value - step, ArrowRight: value + step, ArrowUp: value + step,
      PageDown: value - 10 * step, PageUp: value + 10 * step, Home: least, End: most,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(to);
  });
  input.addEventListener("input", () => { if (input.value !== "" && Number.isFinite(input.valueAsNumber)) { value = input.valueAsNumber; show(); clearTimeout(waiting); waiting = setTimeout(ask, 200); } });
  reset.addEventListener("click", () => { value = start; input.value = start; show(); ask(); line.focus(); });
}
line.hidden = false;
show();
