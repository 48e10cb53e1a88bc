// Columns sort by a click, and a link opens what it leads to. Without this the page shows the same, in its own order.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = Number(text.replaceAll(",", "").replace(/^\+/, "").replace(/^< /, "").replace(/ ?%$/, ""));
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const first = rows.some((row) => typeof value(row, column) === "number") ? "descending" : "ascending";
      const other = { ascending: "descending", descending: "ascending" };
      const now = head.getAttribute("aria-sort");
      const next = now ? other[now] : first;
      for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      rows.sort((x, y) => {
        const [a, b] = [value(x, column), value(y, column)];
        return a === null || b === null ? (a === null) - (b === null) : sign * order(a, b); // empty cells come last
      });
      body.append(...rows);
    });
  });
}
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", reveal);
reveal();
