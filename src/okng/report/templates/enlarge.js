// Click a pair of pictures to see it large; without JavaScript the page only lacks this.
const say = (key, figures = {}) => words[`table.${key}`].replace(/\{(\w+)\}/g, (_, name) => figures[name]);
const dialog = document.getElementById("enlarged");
for (const pictures of document.querySelectorAll(".pictures")) {
  const open = () => {
    const copy = pictures.cloneNode(true);
    copy.removeAttribute("tabindex");
    copy.removeAttribute("role");
    dialog.firstElementChild.replaceChildren(copy);
    dialog.showModal();
  };
  pictures.tabIndex = 0;
  pictures.setAttribute("role", "button");
  const names = [...pictures.querySelectorAll("img")].map((image) => image.alt);
  pictures.setAttribute("aria-label", say("enlarge", { name: names.join("; ") }));
  pictures.addEventListener("click", open);
  pictures.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open();
  });
}
dialog.addEventListener("click", () => dialog.close());
