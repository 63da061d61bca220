// One key for each answer. A key is taken by its letter, or where a keyboard writes other letters (ㅐ, щ) by its place.
const form = document.getElementById("answer");
document.addEventListener("keydown", (event) => {
  if (!form || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.matches("input:not([type=radio]):not([type=checkbox]), select, textarea")) return;
  const latin = /^[a-z]$/i.test(event.key);
  const button = [...form.querySelectorAll("button[data-key]")].find((one) =>
    latin ? one.dataset.key === event.key.toLowerCase() : one.dataset.code === event.code);
  if (!button || button.disabled) return;
  event.preventDefault();
  button.click();
});
let sent = false;
form?.addEventListener("submit", (event) => {
  if (sent) event.preventDefault(); // two quick keys: the second was meant for the next image, which isn't seen yet
  sent = true;
});
window.addEventListener("pageshow", () => { sent = false; });
