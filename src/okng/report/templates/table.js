// The table of all images: sorted, filtered, a hundred rows at a time; and the command that learns what is really OK.
const PAGE = 100;
const [NUMBER, PATH, SCORE, P, DISTANCE, CALLED_NG, REGIONS, LABEL, KIND] = data.rows.length ? data.rows[0].keys() : [];
const byNumber = new Map(data.rows.map((row) => [row[NUMBER], row]));
const ticked = new Set();
const filters = document.getElementById("filters");
const table = document.getElementById("images");
const verdict = (row) => (row[CALLED_NG] ? "NG" : "OK");
const name = (row) => row[PATH] || say("number", { n: row[NUMBER] });
const labelled = data.rows.some((row) => row[LABEL]);
const columns = [
  [say("image"), PATH, (row) => nameCell(row)],
  [say("verdict"), CALLED_NG, (row) => verdictCell(row)],
  labelled && [say("label"), LABEL, (row) => row[LABEL]],
  data.kinds.length && [say("kind"), KIND, (row) => row[KIND]],
  data.rows.some((row) => row[DISTANCE] !== null) && [say("distance"), DISTANCE, (row) => row[DISTANCE]?.toFixed(2) ?? "–"],
  [say("score"), SCORE, (row) => Number(row[SCORE].toPrecision(4))],
  [say("p_value"), P, (row) => `${row[P] <= data.smallest ? "≤ " : ""}${Number(row[P].toPrecision(2))}`],
  [say("regions"), REGIONS, (row) => row[REGIONS] || ""],
  learning && [say("really_ok"), null, (row) => tickCell(row)],
].filter(Boolean);

let order = { column: SCORE, down: true };
let first = 0;

function nameCell(row) {
  if (!document.getElementById(`image-${row[NUMBER]}`)) return name(row);
  const link = document.createElement("a");
  link.href = `#image-${row[NUMBER]}`;
  link.textContent = name(row);
  return link;
}

function verdictCell(row) {
  const badge = document.createElement("span");
  badge.className = `verdict ${verdict(row).toLowerCase()}`;
  badge.textContent = verdict(row);
  if (!row[LABEL] || row[LABEL] === verdict(row)) return badge;
  const truth = document.createElement("span");
  truth.className = "truth";
  truth.textContent = row[CALLED_NG] ? say("false_alarm") : say("missed");
  const both = document.createElement("span");
  both.append(badge, " ", truth);
  return both;
}

function tickCell(row) {
  if (!row[CALLED_NG] || !row[PATH] || row[LABEL] === "NG") return "";
  const box = document.createElement("input");
  box.type = "checkbox";
  box.className = "really-ok";
  box.dataset.number = row[NUMBER];
  box.checked = ticked.has(row[NUMBER]);
  box.setAttribute("aria-label", say("is_really_ok", { name: name(row) }));
  return box;
}

function wanted(row, text, which) {
  if (which === "missed" || which === "false") {
    if (row[LABEL] !== (which === "missed" ? "NG" : "OK") || row[LABEL] === verdict(row)) return false;
  } else if (which === "regions") {
    if (row[CALLED_NG] || !row[REGIONS]) return false;
  } else if (which && which !== verdict(row)) return false;
  return !text || `${name(row)} ${row[KIND]}`.toLowerCase().includes(text);
}

function show() {
  const text = filters.elements.text.value.trim().toLowerCase();
  const which = filters.elements.which.value;
  const { column, down } = order;
  const compare = column === PATH || column === LABEL || column === KIND
    ? new Intl.Collator("en", { numeric: true }).compare
    : (a, b) => a - b;
  const rows = data.rows.filter((row) => wanted(row, text, which));
  rows.sort((a, b) => (down ? -1 : 1) * compare(a[column], b[column]) || a[NUMBER] - b[NUMBER]);
  first = Math.min(first, Math.max(0, Math.ceil(rows.length / PAGE) - 1) * PAGE);
  const page = rows.slice(first, first + PAGE);
  table.tBodies[0].replaceChildren(...page.map((row) => {
    const line = document.createElement("tr");
    for (const [, column, cell] of columns) {
      const box = document.createElement(column === PATH ? "th" : "td");
      if (column === PATH) box.scope = "row";
      if ([CALLED_NG, LABEL, KIND].includes(column)) box.className = "text";
      box.append(cell(row));
      line.append(box);
    }
    return line;
  }));
  document.getElementById("count").textContent = rows.length
    ? say("count", { first: first + 1, last: first + page.length, total: rows.length })
    : say("none");
  document.getElementById("before").disabled = first === 0;
  document.getElementById("after").disabled = first + PAGE >= rows.length;
  [...table.tHead.rows[0].cells].forEach((cell, i) => {
    if (columns[i][1] === column) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

for (const [title, column] of columns) {
  const cell = document.createElement("th");
  cell.scope = "col";
  if ([CALLED_NG, LABEL, KIND].includes(column)) cell.className = "text";
  if (column === null) cell.textContent = title;
  else {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    if (column === DISTANCE) button.title = say("distance_said");
    button.addEventListener("click", () => {
      const isText = column === PATH || column === LABEL || column === KIND;
      order = { column, down: order.column === column ? !order.down : !isText };
      first = 0;
      show();
    });
    cell.append(button);
  }
  table.tHead.rows[0].append(cell);
}
filters.addEventListener("input", () => { first = 0; show(); });
filters.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("before").addEventListener("click", () => { first -= PAGE; show(); });
document.getElementById("after").addEventListener("click", () => { first += PAGE; show(); });
filters.hidden = table.hidden = false;
show();

const learn = document.getElementById("learn");
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
document.addEventListener("change", ({ target }) => {
  if (!target.classList.contains("really-ok")) return;
  const number = Number(target.dataset.number);
  if (target.checked) ticked.add(number);
  else ticked.delete(number);
  for (const box of document.querySelectorAll(`.really-ok[data-number="${number}"]`)) box.checked = target.checked;
  const paths = [...ticked].sort((a, b) => a - b).map((one) => data.root + byNumber.get(one)[PATH]);
  learn.hidden = !paths.length;
  learn.querySelector("b").textContent = say(paths.length === 1 ? "ticked_one" : "ticked", { n: paths.length });
  learn.querySelector("textarea").value = [...learning, ...paths].map(quoted).join(" ");
});
learn?.querySelector("button").addEventListener("click", () => {
  learn.querySelector("textarea").select();
  document.execCommand("copy"); // a page opened from a disk has no other clipboard
  learn.querySelector("button").textContent = say("copied");
});
