// Sorts the table by the column whose heading is chosen.
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("thead th")];
for (const head of heads) {
  head.querySelector("button")?.addEventListener("click", () => {
    const column = heads.indexOf(head);
    const descending = head.getAttribute("aria-sort") !== "descending";
    const value = row => Number(row.cells[column].dataset.value);
    const rows = [...body.rows].sort((a, b) => value(a) - value(b));
    body.append(...(descending ? rows.reverse() : rows));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  });
}
