"""Which files can be parsed: suffixes, and the MIME types an upload page offers for them."""

from __future__ import annotations

from pathlib import PurePath

from retrieval.errors import UnsupportedDocument

_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_SLIDES = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})

_DOCUMENTS = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".pdf": "application/pdf",
    ".docx": _WORD,
    ".pptx": _SLIDES,
    ".xlsx": _SHEET,
    ".epub": "application/epub+zip",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
}
_CODE = {
    "text/x-python": ".py .pyi",
    "text/javascript": ".js .mjs .cjs .jsx",
    "text/typescript": ".ts .tsx",
    "text/x-java": ".java",
    "text/x-kotlin": ".kt .kts",
    "text/x-scala": ".scala",
    "text/x-go": ".go",
    "text/x-rust": ".rs",
    "text/x-c": ".c .h",
    "text/x-c++": ".cc .cpp .cxx .hh .hpp .hxx",
    "text/x-csharp": ".cs",
    "text/x-swift": ".swift",
    "text/x-ruby": ".rb",
    "text/x-php": ".php",
    "text/x-perl": ".pl .pm",
    "text/x-lua": ".lua",
    "text/x-r": ".r",
    "text/x-sh": ".sh .bash",
    "text/x-sql": ".sql",
    "text/x-protobuf": ".proto",
    "text/css": ".css .scss",
    "text/x-toml": ".toml",
    "text/yaml": ".yaml .yml",
    "text/x-ini": ".ini .cfg",
}

CODE_SUFFIXES = frozenset(suffix for suffixes in _CODE.values() for suffix in suffixes.split())
MIME_TYPES = _DOCUMENTS | {suffix: mime for mime, suffixes in _CODE.items() for suffix in suffixes.split()}
"""The MIME type of each supported suffix."""
SUFFIXES = frozenset(MIME_TYPES)


def supported(path: PurePath) -> bool:
    return path.suffix.lower() in SUFFIXES


def require_supported(path: PurePath) -> None:
    """Raises `UnsupportedDocument`."""
    if not supported(path):
        kind = f"'{path.suffix}' files" if path.suffix else "files without a suffix"
        raise UnsupportedDocument(
            f"{path}: no parser for {kind}; convert it to one of {', '.join(sorted(_DOCUMENTS))}, "
            "or name it as the source code it is"
        )
