// Tables whose columns are sorted by a click on their heads; cells say what they are sorted by in data-value.
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.first || "descending";
      const other = first === "descending" ? "ascending" : "descending";
      const wanted = head.getAttribute("aria-sort") === first ? other : first;
      for (const cell of heads) cell.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", wanted);
      const sign = wanted === "ascending" ? 1 : -1;
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
