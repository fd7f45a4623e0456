"""Source code and configuration, cut where its top-level definitions begin.

Found by the shape of lines, not by a grammar: a line that is missed is still text of the definition before.
A definition takes the comments and decorators right above it along. Members of a class, by their indentation,
come below it in the heading path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from retrieval.parse.outline import Outline

_MODIFIERS = (
    r"(?:(?:export|default|declare|public|private|protected|internal|static|abstract|final|sealed|async|open|"
    r"override|data|inline|virtual|partial|suspend|case|unsafe|extern|const|pub(?:\([^)\n]{0,40}\))?)\s+)*"
)
_TYPES = r"class|interface|struct|enum(?:\s+class)?|trait|impl|union|module|mod|namespace|object|protocol|extension|record|package"
_FUNCTIONS = r"def|fn|func|fun|function\*?|sub|macro_rules!"

# Names end where no word character does; the rest of the line is not looked at.
_DEFINITION = re.compile(
    rf"{_MODIFIERS}(?:(?P<type>{_TYPES})|(?:{_FUNCTIONS}))"
    r"(?:<[^>\n]{0,100}>)?\s+"  # Rust: impl<T>
    r"(?:\([^)\n]{0,100}\)\s*)?"  # Go: the receiver
    r"(?:self\.)?(?P<name>[A-Za-z_$][\w$.:]*)"
)
_CONSTANT_FUNCTION = re.compile(
    r"(?:export\s+)?(?:const|let|var)\s+(?P<name>[A-Za-z_$][\w$]*)[^=\n]{0,100}=\s*(?:async\b|function\b|\(|[\w$]+\s*=>)"
)
_GO_TYPE = re.compile(r"type\s+(?P<name>\w+)")
_C_FUNCTION = re.compile(
    r"(?!(?:return|else|typedef|using|static_assert)\b)[A-Za-z_][\w\s*&:<>,]{0,200}?[\s*&](?P<name>~?[\w:]+)\s*\([^;]{0,500}$"
)
_METHOD = re.compile(
    r"(?:(?:public|private|protected|internal|static|final|abstract|override|virtual|async|synchronized|get|set)\s+)*"
    r"(?:[\w<>\[\],.?]{1,80}\s+)?(?!(?:if|for|while|switch|catch|return|else|new|foreach|using|lock)\b)"
    r"(?P<name>[A-Za-z_$#][\w$]*)\s*\([^;]{0,500}\{\s*$"
)
_SHELL_FUNCTION = re.compile(r"(?:function\s+)?(?P<name>[\w.-]+)\s*\(\)")
_SQL = re.compile(
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:\w+\s+){0,3}?(?:TABLE|VIEW|FUNCTION|PROCEDURE|TRIGGER|TYPE|INDEX)\s+"
    r"(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>[\w.\"`\[\]]+)",
    re.I,
)
_SECTION = re.compile(r"\[+(?P<name>[^\]\n]{1,100})\]+")
_PROTO = re.compile(r"(?:message|service|enum)\s+(?P<name>\w+)")

_C_LIKE = frozenset([".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"])
_BRACED = frozenset(
    [".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".java", ".cs", ".php", ".scala", ".kt", ".kts", ".swift"]
)
_SCRIPTS = frozenset([".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx"])
_NOT_CUT = frozenset([".css", ".scss", ".yaml", ".yml", ".r"])
_LONGEST_LINE = 1_000
_DEEPEST_MEMBER = 8
_ABOVE = ("#", "//", "/*", "*", "@", "--", '"""', "[", "///")


def read_code(text: str, suffix: str, outline: Outline) -> None:
    lines = text.expandtabs(4).split("\n")
    done = 0
    for at, level, name in _definitions(lines, suffix):
        start = max(_start(lines, at), done)
        outline.block("\n".join(lines[done:start]))
        outline.heading(level, name)
        done = start
    outline.block("\n".join(lines[done:]))


def _definitions(lines: list[str], suffix: str) -> Iterator[tuple[int, int, str]]:
    """Line number, heading level and name."""
    if suffix in _NOT_CUT:
        return
    in_type = False
    for at, line in enumerate(lines):
        code = line.lstrip(" ")
        indent = len(line) - len(code)
        if not code or len(line) > _LONGEST_LINE or indent > _DEEPEST_MEMBER or (indent and not in_type):
            continue
        found = _match(code, suffix, member=indent > 0)
        if found is None:
            continue
        if indent == 0:
            in_type = bool(found.groupdict().get("type"))
            yield at, 1, found["name"].strip('"`[]: ')
        elif indent <= 4:
            yield at, 2, found["name"]


def _match(code: str, suffix: str, *, member: bool) -> re.Match[str] | None:
    match suffix:
        case ".toml" | ".ini" | ".cfg":
            return _SECTION.match(code)
        case ".sql":
            return _SQL.match(code)
        case ".proto":
            return _PROTO.match(code)
        case ".sh" | ".bash":
            return _SHELL_FUNCTION.match(code)
    found = _DEFINITION.match(code)
    if found is None and suffix == ".go":
        found = _GO_TYPE.match(code)
    if found is None and suffix in _SCRIPTS and not member:
        found = _CONSTANT_FUNCTION.match(code)
    if found is None and suffix in _C_LIKE and not member:
        found = _C_FUNCTION.match(code)
    if found is None and suffix in _BRACED and member:
        found = _METHOD.match(code)
    return found


def _start(lines: list[str], at: int) -> int:
    """Where the comments and decorators of the definition on this line begin."""
    while at > 0 and lines[at - 1].lstrip().startswith(_ABOVE):
        at -= 1
    return at
