// A method that is pointed at stands out in every figure; a click keeps it so. The page reads the same without this.
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
