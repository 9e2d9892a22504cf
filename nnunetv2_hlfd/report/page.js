// A click on the name of a column sorts its table; long tables have a field that filters their rows.
"use strict";

const LONG = 12; // rows

function numberIn(text) {
  const found = /^(?:< )?([-+]?\d+(?:\.\d+)?)/.exec(text);
  return found ? Number(found[1]) : NaN;
}

function sort(table, column, ascending) {
  const rows = [...table.tBodies[0].rows];
  const text = (row) => row.cells[column].textContent;
  const isNumeric = rows.every((row) => text(row) === "-" || !Number.isNaN(numberIn(text(row))));
  const compare = isNumeric
    ? (first, second) => numberIn(first) - numberIn(second)
    : (first, second) => first.localeCompare(second, undefined, { numeric: true });
  rows.sort((first, second) => {
    const missing = (text(first) === "-") - (text(second) === "-"); // last in both orders
    return missing || (ascending ? 1 : -1) * compare(text(first), text(second));
  });
  table.tBodies[0].append(...rows);
}

function addButtons(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("span"); // a real button is blank where print repeats the head of a table
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.title = "sort";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
    button.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        button.click();
      }
    });
    head.replaceChildren(button);
  });
}

function addFilter(table) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "Show rows with ...";
  field.setAttribute("aria-label", "Show rows that have these words");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.parentElement.before(field);
}

for (const table of document.querySelectorAll(".table:not(.text) table")) {
  const number = table.tBodies[0].rows.length;
  if (number > 2) addButtons(table);
  if (number > LONG) addFilter(table);
}
