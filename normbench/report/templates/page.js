// Sorting and filtering of the page's tables. Without it the page is complete, only not to be rearranged.
"use strict";
(() => {
  const number = new Intl.NumberFormat("en");
  const tables = [...document.querySelectorAll("table.data")];
  const figures = document.querySelector("figure") ? "; figures show all runs" : "";
  const rows = tables.flatMap((table) => [...table.querySelectorAll("tbody tr:not(.group)")]);

  // A cell's sort key: `data-v` where its text is not the value itself. Nothing at all goes last, either way.
  const key = (row, column) => (row.cells[column]?.dataset.v ?? row.cells[column]?.textContent ?? "").trim();
  const missing = (text) => text === "" || text === "–";
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x < y ? -1 : x > y ? 1 : 0;
    return a.localeCompare(b, "en", { numeric: true });
  };

  // Rows move within their group only: those of different settings are no rivals.
  const sort = (table, column, direction) => {
    for (const body of table.tBodies) {
      const found = [...body.rows].filter((row) => !row.classList.contains("group"));
      const keyed = found.map((row) => ({ row, text: key(row, column), place: Number(row.dataset.place) }));
      keyed.sort((a, b) => {
        if (direction === "none") return a.place - b.place;
        const order = missing(a.text) - missing(b.text);
        if (order || missing(a.text)) return order || a.place - b.place;
        return (direction === "ascending" ? 1 : -1) * compare(a.text, b.text) || a.place - b.place;
      });
      body.append(...keyed.map(({ row }) => row));
    }
  };

  for (const table of tables) {
    [...table.querySelectorAll("tbody tr")].forEach((row, place) => { row.dataset.place = place; });
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!("sort" in head.dataset)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" };
        const direction = next[head.getAttribute("aria-sort")];
        heads.forEach((other) => { if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", direction);
        sort(table, column, direction);
      });
    });
  }

  const form = document.getElementById("filters");
  if (form) {
    const state = form.querySelector("output");
    const filter = () => {
      const wanted = [...form.querySelectorAll("fieldset")]
        .map((set) => [set.dataset.key, [...set.querySelectorAll("input:checked")].map((box) => box.value)])
        .filter(([, values]) => values.length);
      let shown = 0;
      for (const row of rows) {
        // A row that says nothing of a key, as it holds for all of its values, stays.
        row.hidden = wanted.some(([name, values]) => name in row.dataset && !values.includes(row.dataset[name]));
        shown += !row.hidden;
      }
      for (const body of tables.flatMap((table) => [...table.tBodies])) {
        body.hidden = [...body.rows].every((row) => row.hidden || row.classList.contains("group"));
      }
      const all = `All ${number.format(rows.length)} rows of the tables are shown.`;
      const some = `${number.format(shown)} of ${number.format(rows.length)} rows of the tables are shown${figures}.`;
      state.textContent = wanted.length ? some : all;
    };
    form.addEventListener("change", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    filter(); // a browser may have kept what was ticked before
  }

  // A link into something that is folded opens it; paper shows what is worth its room.
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  const folded = () => [...document.querySelectorAll("details.printed:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => { opened = folded(); opened.forEach((fold) => { fold.open = true; }); });
  addEventListener("afterprint", () => { opened.forEach((fold) => { fold.open = false; }); opened = []; });
})();
