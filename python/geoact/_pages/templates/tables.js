// Click a head to sort by its column: by number where cells have a data-value, else by their words.
function sort(head) {
  const body = head.closest("table").tBodies[0];
  const column = head.cellIndex;
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const number = text => text === "inf" ? Infinity : text === "-inf" ? -Infinity : text === "nan" ? NaN : Number(text);
  const words = !body.rows[0]?.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    if (words) return sign * key(a).localeCompare(key(b), undefined, { numeric: true });
    const [x, y] = [number(key(a)), number(key(b))];
    // What was not measured stays at the end, whichever the order.
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  });
  body.append(...rows);
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
}

function sortable(table) {
  for (const head of table.tHead.rows[0].cells) head.querySelector("button")?.addEventListener("click", () => sort(head));
}
