"use strict";
// Dark or light: as chosen here before, else as the system asks. Runs in the head, so that nothing flashes.
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function remembered() {
    try {
      return localStorage.getItem("compressbench-theme");
    } catch {
      return null; // a browser may forbid it
    }
  }

  function remember(theme) {
    try {
      localStorage.setItem("compressbench-theme", theme);
    } catch {
      // it then holds for this page only
    }
  }

  function apply(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.setAttribute("aria-pressed", String(theme === "dark"));
    }
    document.dispatchEvent(new CustomEvent("themechange"));
  }

  function current() {
    return remembered() ?? (system.matches ? "dark" : "light");
  }

  apply(current());
  system.addEventListener("change", () => apply(current()));
  document.addEventListener("DOMContentLoaded", () => {
    apply(current());
    document.getElementById("theme")?.addEventListener("click", () => {
      const next = root.dataset.theme === "dark" ? "light" : "dark";
      remember(next);
      apply(next);
    });
  });
})();
