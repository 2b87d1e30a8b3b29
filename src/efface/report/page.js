// The page reads the same without this script. With it, a reader points at a method to set it apart in every figure,
// points at a cell for its numbers, sorts the table, and hides methods and metrics.
document.documentElement.classList.add("has-script");
const tip = document.getElementById("tip");
const showTip = (text, x, y) => {
  tip.hidden = false;
  tip.replaceChildren(...text.split("\n").map((line) => Object.assign(document.createElement("div"), { textContent: line })));
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${Math.max(4, y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18)}px`;
};
const hideTip = () => { tip.hidden = true; };
addEventListener("scroll", hideTip, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

// A method that is pointed at stands out in every figure; a click keeps it so.
(() => {
  const lines = [...document.querySelectorAll("svg [data-method]")];
  const names = [...document.querySelectorAll("button.method")];
  let kept = null;
  const show = (method) => {
    for (const line of lines) {
      line.classList.toggle("faint", method !== null && line.dataset.method !== method);
      line.classList.toggle("strong", line.dataset.method === method);
    }
  };
  const keep = (method) => {
    kept = kept === method ? null : method;
    for (const name of names) name.setAttribute("aria-pressed", String(name.dataset.method === kept));
    show(kept);
  };
  for (const part of [...names, ...lines]) {
    part.addEventListener("mouseenter", () => show(part.dataset.method));
    part.addEventListener("mouseleave", () => show(kept));
    part.addEventListener("click", () => keep(part.dataset.method));
  }
  for (const name of names) {
    name.addEventListener("focus", () => show(name.dataset.method));
    name.addEventListener("blur", () => show(kept));
  }
})();

// The table of methods and metrics: cells that tell their numbers, columns that sort.
(() => {
  const table = document.querySelector("table.verdict");
  if (!table) return;
  const body = table.tBodies[0];
  const given = [...body.rows];
  const told = (cell, x, y) => showTip(cell.dataset.tip, x, y);
  const cellOf = (event) => event.target.closest("td[data-tip]");
  body.addEventListener("mousemove", (event) => {
    const cell = cellOf(event);
    if (cell) told(cell, event.clientX, event.clientY); else hideTip();
  });
  body.addEventListener("mouseleave", hideTip);
  body.addEventListener("focusin", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    const box = cell.getBoundingClientRect();
    told(cell, box.left, box.bottom - 12);
  });
  body.addEventListener("focusout", hideTip);
  const first = body.querySelector("td[data-tip]");
  if (first) first.tabIndex = 0;
  const seen = (element) => element.offsetParent !== null;
  body.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!cell || !step) return;
    let [row, column] = [cell.parentElement, cell.cellIndex];
    for (;;) {
      if (step[0]) row = step[0] > 0 ? row.nextElementSibling : row.previousElementSibling;
      column += step[1];
      const next = row && row.cells[column];
      if (!next || column < 1) return;
      if (next.dataset.tip && seen(next)) {
        event.preventDefault();
        cell.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        return;
      }
    }
  });
  const order = (row, metric) => {
    const cell = [...row.cells].find((each) => each.dataset.column === metric);
    const value = parseFloat(cell ? cell.dataset.order : "nan");
    return Number.isNaN(value) ? null : value;
  };
  for (const button of table.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => {
      const metric = button.dataset.sort;
      const state = `${table.dataset.sorted}` === `${metric}>` ? `${metric}<` : `${metric}>`;
      const sign = state.endsWith(">") ? 1 : -1;
      const rows = [...given];
      if (metric) {
        rows.sort((one, two) => {
          const [a, b] = [order(one, metric), order(two, metric)];
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * (b - a);
        });
      } else if (sign < 0) rows.sort((one, two) => one.dataset.row.localeCompare(two.dataset.row));
      body.append(...rows);
      table.dataset.sorted = state;
      for (const head of table.querySelectorAll("[aria-sort]")) {
        const own = head.querySelector("button.sort") === button;
        head.setAttribute("aria-sort", !own ? "none" : metric ? (sign > 0 ? "descending" : "ascending") : "other");
      }
    });
  }
})();

// Methods and metrics that are hidden are so everywhere.
(() => {
  const hide = (kind, value, gone) => {
    const of = kind === "method" ? ["of", "method"] : ["column", "section"];
    const parts = of.flatMap((key) => [...document.querySelectorAll(`[data-${key}]`)].filter((part) => part.dataset[key] === value));
    for (const part of parts) {
      if (kind === "method" && (part.tagName === "BUTTON" || part.tagName === "TD")) continue;
      part.classList.toggle("gone", gone);
    }
  };
  for (const fields of document.querySelectorAll("[data-choose]")) {
    const kind = fields.dataset.choose;
    const boxes = [...fields.querySelectorAll("input")];
    const apply = (box) => hide(kind, box.value, !box.checked);
    for (const box of boxes) box.addEventListener("change", () => apply(box));
    for (const [name, checked] of [["all", true], ["none", false]]) {
      fields.querySelector(`[data-${name}]`).addEventListener("click", () => {
        for (const box of boxes) { box.checked = checked; apply(box); }
      });
    }
  }
})();
