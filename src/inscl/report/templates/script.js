"use strict";
(() => {
  const root = document.documentElement, tip = document.getElementById("tip"), button = document.getElementById("scheme");
  const dark = () => (root.dataset.scheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Use ${dark() ? "light" : "dark"} colours`); };
  button.hidden = false;
  label();
  button.addEventListener("click", () => { root.dataset.scheme = dark() ? "light" : "dark"; label(); });

  // What a mark says moves from its title to a tip that mouse, finger and keyboard share.
  const take = (where) => where.querySelectorAll("svg.fig .m > title").forEach((title) => {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  });
  let on = null;
  const hide = () => { if (on) on.classList.remove("on"); on = null; tip.hidden = true; };
  const show = (mark, x, y) => {
    if (on !== mark) { hide(); on = mark; mark.classList.add("on"); tip.textContent = mark.dataset.tip; tip.hidden = false; }
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
  };
  const middle = (mark) => { const box = mark.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest && event.target.closest(".m");
    if (mark) show(mark, event.clientX, event.clientY); else hide();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const figure = document.activeElement.closest && document.activeElement.closest(".fit");
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!figure || !step) return;
    const marks = [...figure.querySelectorAll(".m")], at = marks.indexOf(on);
    if (!marks.length) return;
    event.preventDefault();
    const next = marks[Math.max(0, Math.min(marks.length - 1, at < 0 ? (step > 0 ? 0 : marks.length - 1) : at + step))];
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
    show(next, ...middle(next));
  });
  document.addEventListener("focusout", hide);

  // A figure beside its kin is drawn when it is asked for.
  document.querySelectorAll("select[data-panel]").forEach((select) => {
    const id = select.dataset.panel, panel = document.getElementById(`panel-${id}`), first = document.createElement("template");
    take(panel);
    first.content.append(...panel.cloneNode(true).childNodes);
    select.closest(".choose").hidden = false;
    select.addEventListener("change", () => {
      const from = select.value === "0" ? first : document.getElementById(`${id}-${select.value}`);
      panel.replaceChildren(from.content.cloneNode(true));
      take(panel);
    });
  });
  take(document);

  // Of all answers, those that a choice and some words ask for.
  const filter = document.getElementById("filter");
  if (!filter) return;
  const rows = [...document.querySelectorAll("tr[data-fate]")].map((row) => [row, row.textContent.toLowerCase()]);
  const apply = () => {
    const words = filter.words.value.toLowerCase().split(/\s+/), fate = filter.fate.value;
    let shown = 0;
    rows.forEach(([row, text]) => {
      row.hidden = (fate && row.dataset.fate !== fate) || !words.every((word) => text.includes(word));
      shown += !row.hidden;
    });
    filter.querySelector("output").textContent = `${shown} of ${rows.length}`;
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  filter.hidden = false;
  apply();
})();
