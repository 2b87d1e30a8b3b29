// A picture opens in full size: the file beside the page, or the picture of the page itself if there is no such file.
(() => {
  const dialog = document.getElementById("whole");
  const shown = dialog.querySelector("img");
  const says = document.getElementById("whole-says");
  const small = 112;
  let own = "";
  const open = (picture) => {
    if (!picture.getAttribute("src")) return;
    own = picture.src;
    says.dataset.of = picture.alt;
    says.textContent = picture.alt;
    shown.alt = picture.alt;
    shown.style.width = "";
    shown.src = picture.dataset.full || own;
    dialog.showModal();
  };
  shown.addEventListener("error", () => { if (shown.src !== own) shown.src = own; });
  shown.addEventListener("load", () => {
    const [width, height] = [shown.naturalWidth, shown.naturalHeight];
    const room = Math.floor(Math.min((0.85 * innerWidth) / width, (0.7 * innerHeight) / height));
    const times = Math.max(width, height) <= small ? Math.max(1, room) : 1;
    shown.style.width = `${times * width}px`;
    says.textContent = `${says.dataset.of}. The picture has ${width} x ${height} pixels${times > 1 ? `, and each is drawn ${times} times as large` : ""}.`;
  });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  for (const picture of document.querySelectorAll("#gallery img:not(#whole img, .over img)")) {
    picture.classList.add("opens");
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
    picture.setAttribute("aria-haspopup", "dialog");
    picture.addEventListener("click", () => open(picture));
    picture.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      open(picture);
    });
  }
  for (const table of document.querySelectorAll("table.gallery")) rove(table, "img");
})();
