// Text to the clipboard, and the button that copies.

import { element } from "./element.js";

const COPIED_MS = 1600;

/** Resolves to whether it worked. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard over plain HTTP from another machine, nor without permission: the old way, from a field of its own.
  }
  const before = document.activeElement;
  const field = element("textarea", { value: text, className: "hidden", attributes: { "aria-hidden": "true" } });
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  before?.focus();
  return copied;
}

/** A button that says for a moment whether it worked, to the eye and through `say`. */
export function copyButton(label, text, say) {
  const button = element("button", { type: "button", className: "quiet copy" }, label);
  button.onclick = async () => {
    button.textContent = (await copyText(text())) ? "Copied" : "Copying failed";
    say(button.textContent);
    setTimeout(() => (button.textContent = label), COPIED_MS);
  };
  return button;
}
