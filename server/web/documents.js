// The documents page: a store, the files in it, and what is found in them.

import { Api } from "./api.js";
import { Announcer } from "./documents-announcer.js";
import { DocumentsClient } from "./documents-client.js";
import { AskDialog } from "./documents-dialog.js";
import { DropZone } from "./documents-drop.js";
import { FileList } from "./documents-list.js";
import { OtherFiles } from "./documents-others.js";
import { SearchPanel } from "./documents-search.js";
import { StorePanel } from "./documents-stores.js";
import { button, failure } from "./documents-text.js";
import { Uploads } from "./documents-uploads.js";
import { plural } from "./figures.js";
import { KeyDialog } from "./key.js";
import { Readiness } from "./readiness.js";
import { bindToggle } from "./theme.js";

const byId = (id) => document.getElementById(id);

const announcer = new Announcer();
const client = new DocumentsClient(new Api(new KeyDialog().ask));
const ask = new AskDialog();
const readOnly = new Set(); // ids of stores that refused a file of this key
const uploads = new Uploads({ client, onChange: showUpload, onAttached: (file) => list.take(file) });
const stores = new StorePanel({ client, ask, say: announcer.say, onChoose: open });
const list = new FileList({
  client,
  uploads,
  ask,
  announcer,
  onStore: (store) => stores.renew(store),
  onGone: () => stores.gone().catch(showUnavailable),
  onRemoved: () => others.refresh(),
});
const others = new OtherFiles({ client, ask, say: announcer.say, onAttached: (file) => list.take(file) });
const search = new SearchPanel({ client, say: announcer.say });
const drop = new DropZone(addFiles);
let opened = false;
let opening = false;

/** Again at every step of the server's start, until it works. */
async function start() {
  if (opened || opening) return;
  opening = true;
  try {
    await stores.load();
    opened = true;
    byId("unavailable").replaceChildren();
    byId("panels").hidden = false;
  } catch (error) {
    showUnavailable(error);
  }
  opening = false;
}

function showUnavailable(error) {
  opened = false;
  byId("panels").hidden = true;
  if (error.status === 503) byId("unavailable").replaceChildren("The server is starting; the documents will be here in a moment.");
  else byId("unavailable").replaceChildren(failure("The documents cannot be shown.", error, button("Try again", start)));
}

function open(store) {
  list.open(store);
  others.open(store);
  search.open(store);
  byId("drop-note").textContent = "";
  showZone();
}

function addFiles(found, note) {
  byId("drop-note").textContent = note;
  if (found.length === 0) return;
  announcer.say(`${plural(found.length, "file")} added to the upload.`);
  uploads.add(stores.store.id, found);
}

function showUpload(upload) {
  const failed = upload.state === "failed" && uploads.of(upload.storeId).includes(upload);
  if (failed) announcer.ended({ name: upload.file.name, state: "failed", label: "Not uploaded", note: upload.note });
  list.show();
  if (!upload.forbidden) return;
  readOnly.add(upload.storeId);
  showZone();
}

function showZone() {
  const closed = readOnly.has(stores.store.id) || stores.store.status === "expired";
  drop.show(!closed);
  byId("closed").hidden = !closed;
  if (closed && !byId("closed").hasChildNodes())
    byId("closed").append("This store may be searched and not added to. Make one of your own for your files: ", stores.newButton());
}

const readiness = new Readiness(({ ready, phase, model }) => {
  byId("readiness").dataset.state = ready ? "ready" : "starting";
  byId("readiness-text").textContent = ready ? (model ?? "ready") : phase;
  byId("readiness").title = ready ? `Ready${model ? `: ${model}` : ""}` : `Starting: ${phase}`;
  start();
});

// Another tab may have made or deleted stores.
document.addEventListener("visibilitychange", () => {
  if (opened && !document.hidden) stores.load().catch(() => {});
});
bindToggle(byId("theme-toggle"));
readiness.check();
