// Curves tell their values at the point that is pointed at, or that the arrow keys have moved to.
(() => {
  const data = JSON.parse(document.getElementById("curve-data").textContent);
  const most = 12;
  const text = (value) => (value === null ? "–" : Math.abs(value) < 10 ? value.toFixed(3) : Math.abs(value) < 1000 ? value.toFixed(1) : value.toFixed(0)).replace("-", "−");
  for (const figure of document.querySelectorAll("[data-curves]")) {
    const curves = data[figure.dataset.curves];
    const svg = figure.querySelector("svg");
    if (!curves || !svg) continue;
    const [left, top, right, bottom] = curves.box;
    const [x0, x1, y0, y1] = curves.ends;
    const toX = (value) => left + ((value - x0) / (x1 - x0)) * (right - left);
    const toY = (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
    const guide = document.createElementNS("http://www.w3.org/2000/svg", "line");
    guide.setAttribute("class", "guide");
    svg.append(guide);
    let at = -1;
    const shownRows = () => {
      const gone = new Set([...svg.querySelectorAll("g.curve.gone")].map((line) => line.dataset.method));
      return curves.rows.filter((row) => !gone.has(row[0]));
    };
    const tell = (index, nearY, x, y) => {
      at = index;
      for (const [key, value] of [["x1", toX(curves.at[at])], ["x2", toX(curves.at[at])], ["y1", top], ["y2", bottom]]) guide.setAttribute(key, value);
      guide.style.display = "";
      let rows = shownRows().filter((row) => row[1][at] !== null);
      const count = rows.length;
      if (count > most) {
        const gap = (row) => Math.abs(toY(row[1][at]) - nearY);
        rows = [...rows].sort((one, two) => gap(one) - gap(two)).slice(0, most);
      }
      rows = [...rows].sort((one, two) => two[1][at] - one[1][at]);
      const lines = rows.map(([name, mean, low, high]) => `${name}: ${text(mean[at])}${low[at] === null ? "" : ` [${text(low[at])}, ${text(high[at])}]`}`);
      if (count > most) lines.push(`${count - most} more are further from here.`);
      showTip([curves.says.replace("{}", curves.labels[at]), ...lines].join("\n"), x, y);
    };
    const hide = () => { guide.style.display = "none"; hideTip(); };
    hide();
    svg.addEventListener("mousemove", (event) => {
      const matrix = svg.getScreenCTM();
      if (!matrix) return;
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      if (place.x < left - 12 || place.x > right + 12) { hide(); return; }
      const far = curves.at.map((value) => Math.abs(toX(value) - place.x));
      tell(far.indexOf(Math.min(...far)), place.y, event.clientX, event.clientY);
    });
    svg.addEventListener("mouseleave", hide);
    figure.addEventListener("keydown", (event) => {
      if (event.target !== figure) return;
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = Math.max(0, Math.min(curves.at.length - 1, at + step));
      const matrix = svg.getScreenCTM();
      const place = new DOMPoint(toX(curves.at[next]), top).matrixTransform(matrix);
      tell(next, top, place.x, place.y);
    });
    figure.addEventListener("blur", hide);
  }
})();
