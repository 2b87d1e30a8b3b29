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

// A table is one stop of the tab key. The arrow keys move between its parts that are shown.
const stops = [];
const rove = (table, selector) => {
  const seen = () => [...table.querySelectorAll(selector)].filter((part) => part.checkVisibility());
  const place = (part) => {
    const cell = part.closest("td, th");
    return [cell.parentElement.rowIndex, 1000 * cell.cellIndex + (part === cell ? 0 : [...cell.querySelectorAll(selector)].indexOf(part))];
  };
  const stop = (next) => {
    for (const part of table.querySelectorAll(selector)) part.tabIndex = part === next ? 0 : -1;
  };
  const keep = () => {
    const parts = seen();
    if (parts.length && !parts.some((part) => part.tabIndex === 0)) stop(parts[0]);
  };
  stop(table.querySelector(selector));
  stops.push(keep);
  table.addEventListener("focusin", (event) => { if (event.target.matches(selector)) stop(event.target); });
  table.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [1, -1], ArrowRight: [1, 1], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !event.target.matches(selector)) return;
    const [axis, sign] = step;
    const here = place(event.target);
    const ahead = seen().map((part) => [part, place(part)]).filter(([, at]) => at[1 - axis] === here[1 - axis] && sign * (at[axis] - here[axis]) > 0);
    if (!ahead.length) return;
    event.preventDefault();
    ahead.sort((one, two) => sign * (one[1][axis] - two[1][axis]))[0][0].focus();
  });
};

// Cells tell their numbers in sentences.
for (const table of document.querySelectorAll("table.tells")) {
  const cellOf = (event) => event.target.closest("[data-tip]");
  table.addEventListener("mousemove", (event) => {
    const cell = cellOf(event);
    if (cell) showTip(cell.dataset.tip, event.clientX, event.clientY); else hideTip();
  });
  table.addEventListener("mouseleave", hideTip);
  table.addEventListener("focusin", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    const box = cell.getBoundingClientRect();
    showTip(cell.dataset.tip, box.left, box.bottom - 12);
  });
  table.addEventListener("focusout", hideTip);
  if (table.querySelector("td[data-tip]")) rove(table, "td[data-tip]");
}

// The columns of the table of methods and metrics sort.
(() => {
  const table = document.querySelector("table.verdict");
  if (!table) return;
  const body = table.tBodies[0];
  const given = [...body.rows];
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
    for (const keep of stops) keep();
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
