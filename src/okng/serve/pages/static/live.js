// The live page: asks for its middle part every two seconds, and goes on by itself after the server was away.
const live = document.getElementById("live");
const connection = document.getElementById("connection");
const pause = document.getElementById("pause");
const words = { go_on: pause.dataset.goOn, pause: pause.textContent, paused: pause.dataset.paused };
let tag = "";
let lost = "";
let paused = false;

async function refresh() {
  if (paused || document.hidden) return;
  try {
    const answer = await fetch(live.dataset.url, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (answer.status === 401 || answer.redirected) location.reload(); // signed out: the page leads to the sign-in
    else if (answer.status === 200) {
      const focused = document.activeElement?.getAttribute("href");
      live.innerHTML = await answer.text();
      if (focused) [...live.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
      tag = answer.headers.get("ETag") ?? "";
    } else if (answer.status !== 304) throw new Error(answer.status);
    if (lost) connection.textContent = "";
    lost = "";
  } catch {
    lost ||= new Date().toLocaleTimeString(document.documentElement.lang);
    connection.textContent = live.dataset.lost.replace("{time}", lost);
  }
}

async function again() {
  await refresh();
  setTimeout(again, lost ? 4000 : 2000);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? words.go_on : words.pause;
  connection.textContent = paused ? words.paused : "";
});
document.addEventListener("visibilitychange", refresh);
again();
