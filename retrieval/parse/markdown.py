"""Markdown (CommonMark with tables and strikethrough) to headings and readable text.

Divergences from a renderer: links keep their text and lose their address, images become their alternative
text, embedded HTML is reduced to its visible text, and comments disappear.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from retrieval.parse.outline import Outline

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)^(?:---|\+\+\+|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
_FRONT_MATTER_FIELD = re.compile(r"^[\w-]+[ \t]*[:=]", re.M)
_FRONT_MATTER_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.+?)[ \t]*$", re.M | re.I)
_TEXT_TAG = re.compile(r"<br\s*/?>", re.I)


def read_markdown(text: str, outline: Outline) -> str:
    """Fill the outline; the return is the front matter's title, or empty."""
    from markdown_it.tree import SyntaxTreeNode

    title = ""
    front = _FRONT_MATTER.match(text)
    # Without fields, the first line is a thematic break and the rest is text.
    if front and (_FRONT_MATTER_FIELD.search(front[2]) or not front[2].strip()):
        text = text[front.end() :]
        if found := _FRONT_MATTER_TITLE.search(front[2]):
            title = found[1].strip("\"'")
    for node in SyntaxTreeNode(_parser().parse(text)).children:
        if node.type == "heading":
            outline.heading(int(node.tag[1]), _inline(node))
        else:
            outline.block(_block(node))
    return title


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _block(node: SyntaxTreeNode) -> str:
    match node.type:
        case "paragraph" | "heading":
            return _inline(node)
        case "fence" | "code_block":
            return f"```{node.info.strip()}\n{node.content.rstrip()}\n```"
        case "bullet_list" | "ordered_list":
            return _list(node)
        case "blockquote":
            return "\n".join(f"> {line}".rstrip() for line in _blocks(node).split("\n"))
        case "table":
            return "\n".join(
                " | ".join(_inline(cell) for cell in row.children)
                for part in node.children
                for row in part.children
            )
        case "html_block":
            from retrieval.parse.html import html_text

            return html_text(node.content)
        case "hr":
            return ""
        case _:
            return _blocks(node)


def _blocks(node: SyntaxTreeNode) -> str:
    return "\n\n".join(text for child in node.children if (text := _block(child)))


def _list(node: SyntaxTreeNode) -> str:
    items = []
    for number, item in enumerate(node.children, start=int(node.attrGet("start") or 1)):
        mark = f"{number}. " if node.type == "ordered_list" else "- "
        indent = " " * len(mark)
        lines = "\n".join(text for child in item.children if (text := _block(child))).split("\n")
        items.append(mark + "\n".join([lines[0], *(indent + line if line else line for line in lines[1:])]))
    return "\n".join(items)


def _inline(node: SyntaxTreeNode) -> str:
    parts: list[str] = []
    for child in node.children:
        match child.type:
            case "text":
                parts.append(child.content)
            case "code_inline":
                parts.append(f"`{child.content}`")
            case "softbreak":
                parts.append(" ")
            case "hardbreak":
                parts.append("\n")
            case "html_inline":
                parts.append("\n" if _TEXT_TAG.fullmatch(child.content) else "")
            case "image":
                parts.append(child.content)
            case _:
                parts.append(_inline(child))
    return "".join(parts).strip()
