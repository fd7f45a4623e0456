// The calls of the documents page: OpenAI's files and vector stores.

const PAGE = 100; // the most that the server lists at once
const MOST_PAGES = 20;

export const DEFAULT_STORE = "default";

const pathOf = (...parts) => ["/v1/vector_stores", ...parts.map(encodeURIComponent)].join("/");

/** All of this caller's vector stores, the deployment's `default` first, then by name. */
export async function listStores(api, init) {
  const { data } = await listed(api, "/v1/vector_stores", {}, MOST_PAGES, init);
  const byName = (one, other) => storeName(one).localeCompare(storeName(other)) || one.created_at - other.created_at;
  return data.sort((one, other) => (other.id === DEFAULT_STORE) - (one.id === DEFAULT_STORE) || byName(one, other));
}

/** A store need not have a name. */
export const storeName = ({ id, name }) => name?.trim() || id;

/** Their names by id, told apart by the end of the id where two stores have the same. */
export function storeLabels(stores) {
  const names = stores.map(storeName);
  const twice = new Set(names.filter((name, at) => names.indexOf(name) !== at));
  return new Map(stores.map((store, at) => [store.id, twice.has(names[at]) ? `${names[at]} (…${store.id.slice(-6)})` : names[at]]));
}

async function listed(api, path, query, mostPages, init) {
  const data = [];
  for (let pages = 0; ; pages++) {
    const asked = new URLSearchParams({ ...query, limit: PAGE, ...(data.length > 0 && { after: data.at(-1).id }) });
    const page = await api.json(`${path}?${asked}`, init);
    data.push(...page.data);
    const hasMore = page.has_more && page.data.length > 0;
    if (!hasMore || pages + 1 === mostPages) return { data, hasMore };
  }
}

export class DocumentsClient {
  #api;

  constructor(api) {
    this.#api = api;
  }

  stores() {
    return listStores(this.#api);
  }

  store(id, init) {
    return this.#api.json(pathOf(id), init);
  }

  create(name) {
    return this.#post("/v1/vector_stores", { name });
  }

  rename(id, name) {
    return this.#post(pathOf(id), { name });
  }

  deleteStore(id) {
    return this.#delete(pathOf(id));
  }

  /** All files of this caller, in whichever stores; the newest first. */
  async uploaded() {
    return (await listed(this.#api, "/v1/files", {}, MOST_PAGES)).data;
  }

  /** The newest first; `pages` of a hundred. Resolves to {data, hasMore}. */
  files(storeId, { status, pages = MOST_PAGES, signal }) {
    return listed(this.#api, pathOf(storeId, "files"), status ? { filter: status } : {}, pages, { signal });
  }

  /** Resolves to the file's id. */
  async upload(file, { onProgress, signal }) {
    const form = new FormData();
    form.append("purpose", "assistants");
    form.append("file", file, file.name);
    return (await this.#api.postForm("/v1/files", form, { onProgress, signal })).id;
  }

  /** Reads the file into the store; again, if it is there already. */
  attach(storeId, fileId, attributes = {}) {
    return this.#post(pathOf(storeId, "files"), { file_id: fileId, attributes });
  }

  detach(storeId, fileId) {
    return this.#delete(pathOf(storeId, "files", fileId));
  }

  deleteFile(fileId) {
    return this.#delete(`/v1/files/${encodeURIComponent(fileId)}`);
  }

  search(storeId, query, most, signal) {
    return this.#post(pathOf(storeId, "search"), { query, max_num_results: most }, { signal });
  }

  async #post(path, body, init) {
    const { response } = await this.#api.postJson(path, body, init);
    return response.json();
  }

  #delete(path) {
    return this.#api.json(path, { method: "DELETE" });
  }
}
