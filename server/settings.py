"""The one settings tree: a TOML file, then the environment (`FIRSTWORD_SECTION__FIELD`), frozen at start.

Unknown keys are fatal, every field has bounds, and its docstring is what `firstword config show` prints.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from server.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = PROJECT_ROOT / "configs" / "default.toml"
STARTER = "starter"
"""As a model's name: the small model that `firstword models prepare` makes ready."""

_ENV_PREFIX = "FIRSTWORD_"
_API_KEYS_VARIABLE = "FIRSTWORD_AUTH__API_KEYS__"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class HttpSettings(Section):
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs `auth.api_keys` or `auth.allow_anonymous`."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    heartbeat_s: float = Field(10.0, gt=0, le=15)
    """A silent stream gets a comment this often, before its first token too."""
    send_timeout_s: float = Field(30.0, gt=0, le=600)
    """A reader that takes nothing for this long is cut off."""
    write_buffer_bytes: int = Field(16_384, ge=1_024, le=16_777_216)
    """Bytes that may wait for a slow reader; beyond them its tokens are merged into one frame until it reads."""
    header_timeout_s: float = Field(10.0, gt=0, le=600)
    """A connection that has not finished a request's headers for this long is closed."""
    body_timeout_s: float = Field(30.0, gt=0, le=600)
    """A body that has not come whole in this time is answered with 408."""
    max_connections: int = Field(4_096, ge=1, le=1_000_000)
    """Most open connections; further ones are told so and closed."""
    shutdown_grace_s: float = Field(10.0, ge=0, le=600)
    """Running streams may finish for this long after SIGTERM."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser; none by default."""


class LimitSettings(Section):
    """What one request may ask for; beyond it the answer is 400, 413 or 431."""

    max_body_bytes: int = Field(1_000_000, ge=1_024, le=100_000_000)
    """Largest request body that is read; above it the answer is 413."""
    max_header_bytes: int = Field(32_768, ge=1_024, le=1_048_576)
    """Longest request line and headers together; above it the answer is 431."""
    max_messages: int = Field(512, ge=1, le=10_000)
    """Most messages one request may carry."""
    max_tokens: int = Field(16_384, ge=1)
    """Longest answer that may be asked for; the model's context bounds it too."""
    max_choices: int = Field(8, ge=1, le=128)
    """Most answers to one request (`n`)."""
    max_stop_strings: int = Field(16, ge=1, le=256)
    """Most stop strings."""
    max_stop_characters: int = Field(256, ge=1, le=4_096)
    """Longest stop string; a stream holds that much text back."""
    max_logit_biases: int = Field(300, ge=0, le=10_000)
    """Most tokens that `logit_bias` may name."""
    max_top_logprobs: int = Field(20, ge=0, le=20)
    """Most alternatives that are told with each token."""
    max_tools: int = Field(64, ge=0, le=1_024)
    """Most tools one request may offer."""
    max_schema_bytes: int = Field(16_384, ge=64, le=1_000_000)
    """Largest JSON schema, of a tool or of the answer."""
    max_schema_depth: int = Field(16, ge=1, le=100)
    """Deepest nesting of a JSON schema."""


class AuthSettings(Section):
    api_keys: dict[str, SecretStr] = {}
    """Tenant name to API key. Empty: no key is asked for, which only a loopback address allows."""
    priority_tenants: tuple[str, ...] = ()
    """Tenants that may ask for `service_tier: "priority"`."""
    allow_anonymous: bool = False
    """Serve without keys on an address that others can reach."""
    cache_secret: SecretStr = SecretStr("")
    """Secret from which each tenant's cache salt is derived; empty: a new one at every start."""


class SimulatedSettings(Section):
    prefill_tokens_per_s: float = Field(20_000, gt=0)
    """Prompt tokens computed per second, one prompt after the other."""
    first_token_ms: float = Field(0.0, ge=0)
    """Time from the end of a prompt's prefill to its first token; prompts do not wait for one another here."""
    token_interval_ms: float = Field(10.0, ge=0)
    """Time between two tokens of one answer."""
    kv_blocks: int = Field(4_096, ge=1)
    """Size of the prefix cache in blocks."""
    reply: str = Field(
        "This is the simulated engine: it measures the gateway and knows nothing. "
        "It counted {prompt_tokens} prompt tokens, {cached_tokens} of them from its prefix cache. 👋",
        min_length=1,
    )
    """What it answers."""


class EngineSettings(Section):
    kind: Literal["embedded", "simulated"] = "embedded"
    """`embedded`: vLLM in this process. `simulated`: for measuring the gateway alone."""
    model: str = STARTER
    """`starter`, a local path, or a Hugging Face name."""
    served_model_name: str = ""
    """Name in the API; empty: the last part of `model`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights and activations. CPUs without AVX-512 have no bfloat16 kernels: float32 there."""
    enforce_eager: bool = False
    """Skip compilation: starts in a minute on a CPU instead of four, costs throughput on a GPU."""
    block_size: int = Field(32, ge=16, le=256, multiple_of=16)
    """Tokens per KV block; the prefix cache works in whole blocks. CPUs need a multiple of 32."""
    max_model_len: int = Field(4_096, ge=256)
    """Longest prompt plus answer, in tokens."""
    max_num_seqs: int = Field(16, ge=1, le=4_096)
    """Most sequences in one batch."""
    max_num_batched_tokens: int = Field(256, ge=32)
    """Tokens per engine step: small keeps running streams smooth, large finishes a long prefill sooner."""
    kv_cache_gib: int = Field(2, ge=1, le=4_096)
    """KV cache on a CPU, in GiB (on a GPU: `gpu_memory_utilization`)."""
    gpu_memory_utilization: float = Field(0.9, gt=0.05, le=0.98)
    """Share of the GPU's memory for weights and KV cache."""
    tensor_parallel_size: int = Field(1, ge=1, le=64)
    """GPUs one model is spread over."""
    tool_parser: str = ""
    """vLLM's name of the parser that finds tool calls in the model's text; empty: tools are refused."""
    reasoning_parser: str = ""
    """vLLM's name of the parser that tells reasoning from the answer; empty: all text is the answer."""
    restart_backoff_s: float = Field(1.0, gt=0, le=60)
    """Pause before the first restart after a crash; doubles each time, up to a minute."""
    canary_s: float = Field(15.0, gt=0, le=3_600)
    """An engine that has been idle this long is asked for one token, to see that it still answers."""
    stall_s: float = Field(20.0, gt=0, le=3_600)
    """An engine with work that finishes no step for this long is not ready any more."""
    stall_restart_s: float = Field(60.0, gt=0, le=3_600)
    """And after this much longer it is ended and started anew."""
    retry_wait_s: float = Field(90.0, ge=0, le=3_600)
    """A turn whose engine failed before its first token waits this long for one that answers, and tries once more."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "ERROR"
    """vLLM's own log; below ERROR its start is talkative."""
    simulated: SimulatedSettings = SimulatedSettings()
    """Only for `kind = "simulated"`."""


class RetrievalSettings(Section):
    embedder: str = STARTER
    """`starter` or the path of a sentence-transformers model."""
    embedder_kind: Literal["sentence-transformers", "hashing"] = "sentence-transformers"
    """`hashing` has no model and no sense of meaning: for tests of everything else."""
    embedder_backend: Literal["auto", "torch", "onnx", "onnx-int8"] = "auto"
    """What runs the model; `auto`: torch on a GPU, on a CPU the fastest that holds its recall."""
    embedder_threads: int = Field(2, ge=1, le=64)
    """Threads that embed one query on the CPU."""
    embedder_device: str = ""
    """For torch: `cpu`, `cuda`, `cuda:1`; empty: a GPU where there is one."""
    sample_knowledge: str = "docs"
    """Folder that is ingested when the store is empty; empty: none. Relative to the project."""
    chunk_tokens: int = Field(160, ge=16, le=4_096)
    """Largest chunk, in the chat model's tokens."""
    chunk_overlap_tokens: int = Field(24, ge=0, le=1_024)
    """Tokens two neighbouring chunks of one section share."""
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    """Search by meaning (`dense`), by words (`lexical`, BM25), or by both, fused."""
    query: Literal["last", "last_two", "last_three", "weighted", "rules"] = "weighted"
    """What of the conversation is searched for."""
    candidates: int = Field(50, ge=1, le=1_000)
    """Chunks that each index contributes before they are fused and reranked."""
    top_k: int = Field(2, ge=1, le=64)
    """Passages per turn, unless the request says otherwise."""
    min_score: float = Field(0.0, ge=-1, le=1)
    """Passages below this score are left out."""
    nothing_found: Literal["tell", "refuse", "ignore"] = "tell"
    """A turn whose search finds nothing above `min_score`: the model is told so, the turn is answered with
    `prompt.nothing_found_reply`, or the model answers as if nothing had been searched."""
    merge_neighbours: bool = True
    """Passages of one turn that follow one another in a document become one in the prompt."""
    reranker: str = ""
    """Path of a cross-encoder that orders what both indexes found; empty: none."""
    rerank_candidates: int = Field(20, ge=1, le=200)
    """Passages that are reranked."""
    rerank_budget_ms: float = Field(100.0, gt=0, le=60_000)
    """What is not reranked by then keeps its place."""
    index: Literal["auto", "flat", "pq", "ivf", "hnsw", "gpu-flat", "gpu-ivfpq", "gpu-cagra"] = "auto"
    """The kind of FAISS index; `auto`: by the number of chunks and the device."""
    index_device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the index lives; `auto`: on a GPU where there is one and FAISS can use it."""
    index_snapshot: bool = True
    """Keep the index in a file too, so that a large one need not be built at each start."""
    max_document_bytes: int = Field(20_000_000, ge=1_024)
    """Largest file that is ingested."""
    max_unpacked_bytes: int = Field(200_000_000, ge=1_024)
    """Most that a packed document (DOCX, XLSX, PPTX, EPUB) may unpack to."""
    max_pages: int = Field(5_000, ge=1)
    """Pages, slides or sheets of one document."""
    max_chunks: int = Field(50_000, ge=1)
    """Chunks of one document."""
    parse_seconds: float = Field(120.0, gt=0, le=3_600)
    """A document that takes longer to parse is given up."""
    parse_memory_mib: int = Field(1_536, ge=256)
    """So is one that takes more memory."""

    @model_validator(mode="after")
    def _overlap_is_smaller_than_chunk(self) -> RetrievalSettings:
        if self.chunk_overlap_tokens * 2 > self.chunk_tokens:
            raise ValueError("chunk_overlap_tokens must be at most half of chunk_tokens")
        return self


class FileSettings(Section):
    """Uploaded files and vector stores (`/v1/files`, `/v1/vector_stores`)."""

    default_store_writers: tuple[str, ...] = ()
    """Tenants of `auth.api_keys` that may add to and take from the store `default`. Without keys, everybody may."""
    max_files_per_tenant: int = Field(10_000, ge=1)
    """Files that one tenant may keep."""
    max_bytes_per_tenant: int = Field(10_000_000_000, ge=1_024)
    """What they may weigh together."""
    max_stores_per_tenant: int = Field(1_000, ge=1)
    """Vector stores of one tenant."""
    max_files_per_batch: int = Field(500, ge=1, le=10_000)
    """Files that one call attaches."""
    ingest_pause_s: float = Field(2.0, ge=0, le=60)
    """While a turn waits for its first token an ingest waits too, before each batch that it embeds, so long at most."""


class PromptSettings(Section):
    system: str = (
        "You are a helpful assistant. Answer the user's question in one or two short sentences, "
        "with the facts that stand in the passages ahead of the question."
    )
    """Opens every prompt, unless the request brings a system message of its own."""
    passages_header: str = "Passages:"
    """Stands ahead of the passages in the user's turn."""
    pointer: str = "Passages: {numbers}"
    """Names the passages that are wanted again and stand in the prompt already; empty: they are not named."""
    nothing_found: str = "The documents hold nothing about this question. Say so, and do not guess."
    """Stands in place of the passages when the search found none (`retrieval.nothing_found = "tell"`)."""
    nothing_found_reply: str = "I could not find anything about this in the documents."
    """The whole answer then, where `retrieval.nothing_found = "refuse"`."""
    question_header: str = "Question: "
    """Stands ahead of the question, after the passages."""
    question_footer: str = ""
    """Follows the question when there are passages."""
    max_history_tokens: int = Field(1_024, ge=0)
    """Of turns that the ledger does not know, older ones are dropped beyond this many tokens."""


class ContextSettings(Section):
    """How a conversation's prompt is laid out and what is remembered of it."""

    layout: Literal["append", "system", "user"] = "append"
    """`append`: the prompt only grows. For comparison, rebuilt on each turn: passages in the `system` message, or with
    the last `user` message."""
    order: Literal["shared", "relevance"] = "shared"
    """Of the passages of a first turn: those that other conversations use come first, or the best."""
    order_margin: float = Field(0.15, ge=0, le=2)
    """Passages whose scores differ by more than this keep their order by relevance."""
    order_window: int = Field(512, ge=1, le=100_000)
    """First turns of a tenant that the shared order remembers."""
    max_prompt_tokens: int = Field(0, ge=0)
    """A prompt that grows beyond this is compacted; 0: as far as the model's context and room for the answer allow."""
    compact_to: float = Field(0.6, gt=0, lt=1)
    """Share of that which a compacted prompt may keep."""
    attention_cost: float = Field(0.25, ge=0, le=10)
    """What a thousand tokens of context add to the price of computing one token, against one without context."""
    ledger_mib: int = Field(256, ge=1, le=1_048_576)
    """Memory for the ledgers of all conversations; the least recently used are forgotten."""
    ledger_snapshot: bool = True
    """Keep the ledgers over a restart, in a file that only this user can read. They hold questions and answers."""
    ledger_url: SecretStr = SecretStr("")
    """`redis://` or `rediss://`: several gateways share their ledgers there; empty: each keeps its own."""
    ledger_timeout_ms: float = Field(50.0, gt=0, le=10_000)
    """A shared ledger that answers no sooner is done without."""
    ledger_ttl_s: float = Field(86_400.0, gt=0)
    """How long the shared ledger keeps a conversation that nobody goes on with."""
    overlap_tokens: int = Field(256, ge=1)
    """History of which at least so many tokens must be computed is prefilled while the query is embedded and searched."""


class PrewarmSettings(Section):
    """Type-ahead: prefill while the user types."""

    enabled: bool = True
    """Answer `POST /v1/chat/prewarm`."""
    max_running_share: float = Field(0.5, ge=0, le=1)
    """Nothing is prewarmed while more than this share of the permits for turns is taken, or while a turn waits."""
    max_per_key: int = Field(8, ge=1, le=10_000)
    """Messages of one API key that are being typed at a time; beyond it the oldest is given up."""
    calls_per_minute: int = Field(600, ge=1, le=1_000_000)
    """Of one API key; beyond it the answer is 429."""
    guess_ttl_s: float = Field(120.0, gt=0, le=86_400)
    """How long a prefilled guess waits for its message."""


class GenerationSettings(Section):
    max_tokens: int = Field(256, ge=1)
    """Length of an answer, unless the request says otherwise."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Sampling temperature, unless the request says otherwise."""
    repetition_penalty: float = Field(1.0, gt=0, le=2)
    """Keeps small models from repeating themselves; 1 is off."""


class AdmissionSettings(Section):
    max_running_turns: int = Field(16, ge=1, le=10_000)
    """Turns that retrieve or generate at the same time."""
    max_queued_turns: int = Field(64, ge=0, le=100_000)
    """Turns that may wait for a permit; the next one is refused at once with 429."""
    queue_share_per_key: float = Field(0.5, gt=0, le=1)
    """Share of that line which one API key may fill, when there are several."""
    max_prefill_tokens: int = Field(4_096, ge=32)
    """Prompt tokens that the engine is given to compute at a time; tokens it has in its prefix cache do not count."""
    retry_after_s: float = Field(1.0, gt=0, le=3_600)
    """What a refused client is told to wait."""


class TelemetrySettings(Section):
    turns_kept: int = Field(10_000, ge=1)
    """Turns that `/v1/turns` remembers."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The server's own log."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_ENV_PREFIX,
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("var")
    """Where models, documents and the turn log are kept; relative to the project."""
    http: HttpSettings = HttpSettings()
    """The listening socket and its pace."""
    limits: LimitSettings = LimitSettings()
    """What one request may ask for."""
    auth: AuthSettings = AuthSettings()
    """Who may call."""
    engine: EngineSettings = EngineSettings()
    """The model and how it is run."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """Documents, chunks and search."""
    files: FileSettings = FileSettings()
    """Uploaded files and vector stores."""
    prompt: PromptSettings = PromptSettings()
    """The layout of a prompt."""
    context: ContextSettings = ContextSettings()
    """How a conversation's prompt grows."""
    prewarm: PrewarmSettings = PrewarmSettings()
    """Type-ahead."""
    generation: GenerationSettings = GenerationSettings()
    """Defaults for sampling."""
    admission: AdmissionSettings = AdmissionSettings()
    """How much is taken on at a time."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Logs and the turn log."""

    @model_validator(mode="after")
    def _strangers_need_a_key(self) -> Settings:
        if not (_is_loopback(self.http.host) or self.auth.api_keys or self.auth.allow_anonymous):
            raise ValueError(
                f"http.host = {self.http.host!r} can be reached by others, so auth.api_keys must name at "
                "least one key (or auth.allow_anonymous = true)"
            )
        return self

    @model_validator(mode="after")
    def _prompt_fits(self) -> Settings:
        if self.generation.max_tokens >= self.engine.max_model_len:
            raise ValueError("generation.max_tokens must be below engine.max_model_len")
        return self

    @model_validator(mode="after")
    def _priority_tenants_have_keys(self) -> Settings:
        for tenant in self.auth.priority_tenants:
            if tenant not in self.auth.api_keys:
                raise ValueError(f"auth.priority_tenants names {tenant!r}, which has no key in auth.api_keys")
        return self

    @model_validator(mode="after")
    def _writers_have_keys(self) -> Settings:
        for tenant in self.files.default_store_writers:
            if tenant not in self.auth.api_keys:
                raise ValueError(
                    f"files.default_store_writers names {tenant!r}, which has no key in auth.api_keys"
                )
        return self

    @property
    def data_path(self) -> Path:
        return PROJECT_ROOT / self.data_dir

    @property
    def models_path(self) -> Path:
        return self.data_path / "models"


def load_settings(config: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read `config` (default: `configs/default.toml`), then the environment, then `overrides`.

    Raises `ConfigError` that names every key at fault.
    """
    path = config or DEFAULT_CONFIG
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"configuration file {path} does not exist", next_step="name another with --config or CONFIG="
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}", next_step="mend that line") from None
    _refuse_unknown_environment()
    try:
        return _layered(nested(overrides or {}))(**values)
    except ValidationError as error:
        raise ConfigError(
            "\n".join([f"the configuration from {path} and the environment is not valid:", *_explain(error)]),
            next_step="see every key, its bounds and its meaning with `firstword config show`",
        ) from None


def nested(dotted: dict[str, Any]) -> dict[str, Any]:
    """`{"http.port": 1}` as the tree `{"http": {"port": 1}}`."""
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, field = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[field] = value
    return tree


def _layered(overrides: dict[str, Any]) -> type[Settings]:
    """`Settings` read from the command line, then the environment, then what it is called with (the file)."""

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return InitSettingsSource(settings_cls, overrides), env_settings, init_settings

    return Layered


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: unknown key{_nearest(problem['loc'])}")
        else:
            lines.append(f"  {key + ': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}")
    return lines


def _nearest(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    close = difflib.get_close_matches(str(location[-1]), list(model.model_fields), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(model.model_fields)}"


def _refuse_unknown_environment() -> None:
    """A misspelt variable would otherwise be ignored in silence."""
    known = {name for name, _ in environment_names()}
    known |= {"FIRSTWORD_API_KEY", "FIRSTWORD_SCREENSHOT"}
    for name in os.environ:
        upper = name.upper()
        if upper.startswith(_ENV_PREFIX) and upper not in known and not upper.startswith(_API_KEYS_VARIABLE):
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(
                f"environment variable {name} names no setting{hint}",
                next_step="unset it, or see the names with `firstword config show`",
            )


def environment_names() -> list[tuple[str, str]]:
    """(environment variable, dotted key) of every setting and section."""
    found: list[tuple[str, str]] = []

    def visit(model: type[BaseModel], path: tuple[str, ...]) -> None:
        for name, field in model.model_fields.items():
            here = (*path, name)
            found.append((_ENV_PREFIX + "__".join(here).upper(), ".".join(here)))
            annotation = field.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                visit(annotation, here)

    visit(Settings, ())
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
