// Where files come from: dropped on the page, pasted, or chosen, as files and as whole folders.

import { plural } from "./figures.js";

const MOST_FILES = 2000; // of one drop: a folder chosen by mistake does not hang the page
const HIDDEN = /^(\.|~\$|Thumbs\.db$|desktop\.ini$)/i; // what systems and editors leave in folders

export class DropZone {
  #zone = document.getElementById("drop");
  #onFiles; // ([{file, path}], note)
  #depth = 0; // of dragenter over dragleave: children of the page fire both

  constructor(onFiles) {
    this.#onFiles = onFiles;
    const files = document.getElementById("choose-files");
    const folder = document.getElementById("choose-folder");
    document.getElementById("choose").addEventListener("click", () => files.click());
    document.getElementById("choose-a-folder").addEventListener("click", () => folder.click());
    for (const input of [files, folder])
      input.addEventListener("change", () => {
        this.#give([...input.files].map((file) => ({ file, path: file.webkitRelativePath ?? "" })));
        input.value = ""; // the same file may be chosen again
      });
    // Anywhere on the page: a file that misses the zone would otherwise be opened in place of the page.
    addEventListener("dragenter", (event) => this.#over(event, 1));
    addEventListener("dragleave", (event) => this.#over(event, -1));
    addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = this.open ? "copy" : "none";
    });
    addEventListener("drop", (event) => this.#drop(event));
    addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length > 0 && this.open) this.#give([...event.clipboardData.files].map((file) => ({ file, path: "" })));
    });
  }

  get open() {
    return !this.#zone.hidden && !document.querySelector("dialog[open]");
  }

  show(open) {
    this.#zone.hidden = !open;
  }

  #over(event, step) {
    if (!hasFiles(event)) return;
    this.#depth = Math.max(0, this.#depth + step);
    this.#zone.classList.toggle("over", this.#depth > 0);
  }

  async #drop(event) {
    if (!hasFiles(event)) return;
    event.preventDefault();
    this.#depth = 0;
    this.#zone.classList.remove("over");
    if (!this.open) return;
    // Both are gone after the first await.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    if (entries.length === 0) return this.#give(plain.map((file) => ({ file, path: "" })));
    const found = [];
    const unread = [];
    for (const entry of entries) await walk(entry, found, unread);
    this.#give(found, unread);
  }

  #give(found, unread = []) {
    const seen = found.filter(({ file, path }) => path === "" || !path.split("/").some((step) => HIDDEN.test(step)));
    const notes = [];
    if (seen.length > MOST_FILES) notes.push(`Only the first ${MOST_FILES} of ${seen.length} files were taken; drop the others in a second step.`);
    if (seen.length < found.length) notes.push(`${plural(found.length - seen.length, "hidden file")} left out.`);
    if (unread.length > 0) notes.push(`${unread.length} could not be read: ${unread.slice(0, 5).join(", ")}.`);
    if (found.length === 0 && unread.length === 0) notes.push("There was no file in that.");
    this.#onFiles(seen.slice(0, MOST_FILES), notes.join(" "));
  }
}

const hasFiles = (event) => Boolean(event.dataTransfer?.types.includes("Files"));

async function walk(entry, found, unread) {
  if (found.length > MOST_FILES) return;
  const path = entry.fullPath.replace(/^\//, "");
  try {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ file, path: path.includes("/") ? path : "" });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
      if (some.length === 0) return;
      for (const child of some) await walk(child, found, unread);
    }
  } catch {
    unread.push(path); // no permission, or gone
  }
}
