// How many are chosen, and how far the work in the background is.
const update = document.getElementById("update");
const count = document.getElementById("chosen-count");
const all = document.getElementById("all");
const boxes = [...(update?.querySelectorAll("input[type=checkbox]:not(:disabled)") ?? [])];
function tell() { count.textContent = count.dataset.words.replace("{n}", boxes.filter((box) => box.checked).length); }
if (boxes.length) {
  all.hidden = false;
  all.addEventListener("click", () => { for (const box of boxes) box.checked = true; tell(); });
  update.addEventListener("change", tell);
  tell();
}

const work = document.getElementById("work");
const bar = work?.querySelector("progress");
async function follow() {
  try {
    const answer = await fetch(work.dataset.url, { cache: "no-store" });
    const job = await answer.json();
    if (!job.running) return location.reload();
    if (job.percent === null) bar.removeAttribute("value");
    else bar.value = job.percent;
    if (job.stage) document.getElementById("stage").textContent = job.stage;
  } catch { /* the server is away for a moment: asked again */ }
  setTimeout(follow, 1000);
}
if (work?.dataset.running === "1") follow();
