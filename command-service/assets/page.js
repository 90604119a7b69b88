"use strict";
(() => {
  const field = document.getElementById("field");
  const show = document.getElementById("show");
  if (!field || !show) return;
  show.hidden = false;
  show.addEventListener("click", () => {
    const shown = field.type === "password";
    field.type = shown ? "text" : "password";
    show.setAttribute("aria-pressed", String(shown));
    field.focus();
  });
  field.form.addEventListener("submit", () => { field.type = "password"; });
})();
