// Tables whose columns are sorted by a click on their heads; cells say what they are sorted by in data-value.
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== (head.dataset.first || "descending");
      const before = head.dataset.first === "ascending" ? (down ? "ascending" : "descending") : (down ? "descending" : "ascending");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", before);
      const sign = before === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column]?.dataset.value ?? "";
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [one, two] = [value(a), value(b)];
        if (one === "" || two === "") return (one === "") - (two === ""); // what was not measured stays below
        const numbers = [Number(one), Number(two)];
        return sign * (numbers.some(Number.isNaN) ? one.localeCompare(two) : numbers[0] - numbers[1]);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
