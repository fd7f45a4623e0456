// The colour theme: the system's, until the toggle says otherwise; the choice is remembered in this browser.

const STORED = "firstword.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function stored() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; // storage is blocked: the choice lasts as long as the page
  }
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
}

function choose(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(STORED, theme);
  } catch {
    // as above
  }
}

export function bindToggle(button) {
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    choose(isDark() ? "light" : "dark");
    show();
  });
  system.addEventListener("change", show);
  show();
}

const remembered = stored();
if (remembered === "light" || remembered === "dark") document.documentElement.dataset.theme = remembered;
