"""What the servers of the client matrix answer, and therefore what every client has to have seen."""

from __future__ import annotations

import json
from typing import Any

API_KEY = "sk-test-of-the-client-matrix"

PARSED = {
    "answer": "Ünï \u2028 «quotes» \" and ' and \\ and \\n and \\u2028 \x7f 👩‍👩‍👧‍👦 🇨🇭 — 你好, \u0645\u0631\u062d\u0628\u0627",
    "notes": ["data: [DONE]", "\n\n", '{"error": null}', "</script> <b>&amp;</b>", "tab\tnul\x00bell\x07"],
}
"""What tells a careless reader of events or of JSON from a careful one."""

REPLY = json.dumps(PARSED, ensure_ascii=False, indent=1).replace("\n", "\r", 1).replace("\n", "\r\n")
"""The same as text: U+2028 and emoji as they are, carriage returns between the lines, JSON's own escapes."""

THOUGHT = "The user wants the weather.\nI have a tool for \u201cthat\u201d. 🤔"
REMARK = "Let me look that up."
TOOL: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "note": {"type": "string"},
            "days": {"type": "array", "items": {"type": "number"}},
        },
        "required": ["city", "note", "days"],
        "additionalProperties": False,
    },
}
ARGUMENTS: list[dict[str, Any]] = [
    {"city": "Zürich 🇨🇭", "note": 'a "quote", C:\\temp\\new, {braces} and \u2028', "days": [1, 2.5]},
    {"city": "Paris", "note": "line\nbreak", "days": []},
]
"""Of two calls in one answer."""
TOOL_RESULTS = ['{"celsius": 21.5, "sky": "☀️"}', "rain"]


def _call(arguments: dict[str, Any]) -> str:
    call = json.dumps({"name": TOOL["name"], "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


CALLS = "\n".join(_call(arguments) for arguments in ARGUMENTS)
TOOL_REPLY = f"<think>\n{THOUGHT}\n</think>\n\n{REMARK}\n{CALLS}"
"""What a model writes that thinks, speaks and then calls a tool twice."""

LONG_REPLY = " ".join(f"{number} bottles of beer on the wall." for number in range(400, 0, -1))
"""Some 4,000 tokens: at 20 ms each it runs for over a minute."""

QUESTIONS = ["How long can I return an item?", "And when is the shop closed?", "Thanks! 👋 Is that \\all\\?"]

DOCUMENTS = {
    "returns.md": "# Returns\n\nAn item can be returned within 45 days.\n",
    "Zürich ☀️.md": "# Wetter\n\nIn Zürich scheint die Sonne an 21 Tagen.\n",
    "shipping.md": "# Shipping\n\nA parcel to Norway takes six days.\n",
}
"""What a client uploads, by the name of the file; the first gets attributes."""
