// One image at a time: its map, the map over it, what is left of it, and its scores along the fractions.
(() => {
  const data = JSON.parse(document.getElementById("image-data").textContent);
  const get = (id) => document.getElementById(id);
  const pictures = {};
  for (const picture of document.querySelectorAll("#gallery .gallery img")) {
    pictures[[picture.dataset.kind, picture.dataset.shows || "", picture.dataset.image].join("|")] = picture.getAttribute("src");
  }
  const full = (kind, method, image) => document.querySelector(`#gallery .gallery img[data-kind="${kind}"][data-image="${image}"]${method && `[data-shows="${CSS.escape(method)}"]`}`)?.dataset.full;
  const find = (kind, method, image) => pictures[[kind, method, image].join("|")];
  const fill = (select, options, chosen) => {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
  };
  const methods = data.methods;
  const metrics = Object.keys(data.scores);
  fill(get("see-method"), methods.map((name) => [name, name]), methods.find((name) => !data.controls.includes(name)) || methods[0]);
  fill(get("see-fraction"), data.fractions.map((at, i) => [i, data.fraction_labels[i]]), data.given);
  fill(get("see-metric"), metrics.map((name) => [name, name]), metrics[0]);
  const value = (metric, method, image) => {
    const scores = data.scores[metric] && data.scores[metric].methods[method];
    return scores ? scores[image] : null;
  };
  const gain = (image) => {
    const metric = get("see-metric").value;
    const known = (value(metric, get("see-method").value, image) || []).filter((each) => each !== null);
    if (!known.length) return null;
    return (data.scores[metric].direction === "lower" ? -1 : 1) * (known.reduce((sum, each) => sum + each, 0) / known.length);
  };
  const listImages = () => {
    const chosen = get("see-image").value;
    const sign = { given: 0, best: 1, worst: -1 }[get("see-order").value];
    const order = data.labels.map((_, i) => i);
    if (sign) order.sort((one, two) => {
      const [a, b] = [gain(one), gain(two)];
      return a === null || b === null ? (a === null) - (b === null) : sign * (b - a);
    });
    fill(get("see-image"), order.map((i) => [i, `row ${data.rows[i]}: ${data.labels[i]}${data.why[i] ? ` (${data.why[i]})` : ""}`]), sign ? order[0] : chosen || order[0]);
  };
  const draw = () => {
    const [image, method] = [Number(get("see-image").value), get("see-method").value];
    const fraction = Number(get("see-fraction").value);
    const source = { "view-image": find("image", "", image), "view-map": find("map", method, image), "view-under": find("image", "", image), "view-over": find("map", method, image) };
    source["view-erased"] = fraction === data.given ? find("erased", method, image) : (data.further[method] || {})[fraction]?.[image];
    const whole = { "view-image": full("image", "", image), "view-map": full("map", method, image) };
    whole["view-erased"] = fraction === data.given ? full("erased", method, image) : data.whole[method]?.[fraction]?.[image];
    for (const [id, address] of Object.entries(source)) {
      const view = get(id);
      view.hidden = !address;
      if (address) view.src = address;
      view.dataset.full = whole[id] || "";
      view.alt = id === "view-image" || id === "view-under" ? data.labels[image] : `${method}, ${data.labels[image]}`;
    }
    get("view-over").style.opacity = get("see-mix").value / 100;
    get("view-erased-says").textContent = `without the most relevant ${data.fraction_labels[fraction]}`;
    get("view-says").textContent = `${method}, row ${data.rows[image]}: ${data.labels[image]}.${data.why[image] ? ` Chosen as: ${data.why[image]}.` : ""}`;
    chart(image, method, data.fractions[fraction]);
  };
  const make = (name, attributes, parent, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, each] of Object.entries(attributes)) element.setAttribute(key, each);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const chart = (image, method, fraction) => {
    const figure = get("view-scores");
    const metric = get("see-metric").value;
    const scores = data.scores[metric];
    figure.hidden = !scores;
    if (!scores) return;
    const svg = figure.querySelector("svg");
    svg.replaceChildren();
    const names = [...new Set([scores.reference, method])].filter((name) => name && scores.methods[name]);
    const known = names.flatMap((name) => scores.methods[name][image]).filter((each) => each !== null);
    let [low, high] = [Math.min(...known), Math.max(...known)];
    if (!known.length) { make("text", { x: 40, y: 100 }, svg, "This metric has no score of this image."); return; }
    if (high - low < 1e-9) { low -= 0.5; high += 0.5; }
    const [x0, x1] = [scores.at[0], scores.at[scores.at.length - 1]];
    const x = (at) => 48 + (262 * (at - x0)) / (x1 - x0 || 1);
    const y = (each) => 165 - (150 * (each - low)) / (high - low);
    for (const each of [low, high]) {
      make("line", { x1: 48, x2: 310, y1: y(each), y2: y(each), class: "rule" }, svg);
      make("text", { x: 44, y: y(each) + 4, "text-anchor": "end" }, svg, Math.abs(each) < 10 ? each.toFixed(2) : each.toFixed(0));
    }
    for (const i of [0, scores.at.length - 1]) make("text", { x: x(scores.at[i]), y: 182, "text-anchor": i ? "end" : "start" }, svg, scores.labels[i]);
    make("text", { x: 179, y: 197, "text-anchor": "middle" }, svg, `${scores.score}, by ${scores.axis}`);
    if (fraction >= x0 && fraction <= x1) make("line", { x1: x(fraction), x2: x(fraction), y1: 15, y2: 165, class: "rule" }, svg);
    for (const name of names) {
      const line = scores.methods[name][image];
      const points = line.map((each, i) => (each === null ? null : `${x(scores.at[i])},${y(each)}`)).filter(Boolean).join(" ");
      const drawn = make("polyline", { points, fill: "none", stroke: data.looks[name][0], "stroke-dasharray": data.looks[name][1].join(" "), "stroke-width": name === method ? 2.4 : 1.4 }, svg);
      make("title", {}, drawn, `This line has the scores of this image with ${name}.`);
    }
  };
  for (const id of ["see-image", "see-fraction", "see-mix"]) get(id).addEventListener("input", draw);
  for (const id of ["see-method", "see-order", "see-metric"]) get(id).addEventListener("input", () => { listImages(); draw(); });
  if (!metrics.length) for (const id of ["see-order", "see-metric"]) get(id).closest("label").hidden = true;
  if (data.fractions.length < 2) get("see-fraction").closest("label").hidden = true;
  listImages();
  draw();
})();
