"""What the model's text means: answer, reasoning, tool calls; through vLLM's own parsers.

A parser is chosen by the operator, since it has to fit the model. Asking for tools also constrains what the
model may write: vLLM's parsers say how (`constrain`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from server.engine.protocol import Delta, Grammar, RequestFailed, RequestRefused, ToolCallPiece
from server.errors import ConfigError
from server.sections.engine import EngineSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`."""

    tools: tuple[dict[str, Any], ...]
    choice: Literal["none", "auto", "required"] | dict[str, Any]
    parallel: bool


class ReplyParsers:
    """The parsers of one model; `open` gives each answer its own.

    Importing vLLM takes a while: not to be made on the event loop. Raises `ConfigError`.
    """

    def __init__(self, settings: EngineSettings, tokenizer: Any) -> None:
        from vllm.parser import ParserManager

        self._tokenizer = tokenizer
        self.takes_tools = bool(settings.tool_parser)
        try:
            self._parser_class = ParserManager.get_parser(
                tool_parser_name=settings.tool_parser or None,
                reasoning_parser_name=settings.reasoning_parser or None,
                enable_auto_tools=self.takes_tools,
                tokenizer=tokenizer,
                model_name=settings.model,
            )
        except TypeError as error:
            raise ConfigError(
                f"engine.tool_parser = {settings.tool_parser!r}, engine.reasoning_parser = "
                f"{settings.reasoning_parser!r}: {error}",
                next_step="name parsers that vLLM has and that fit the model, or leave them empty",
            ) from error
        self.tells_reasoning = bool(settings.reasoning_parser)

    def constrain(self, tool_use: ToolUse, grammar: Grammar | None) -> Constraint:
        """What the engine has to keep to. Blocks: call from a thread. Raises `RequestRefused`."""
        from vllm.exceptions import VLLMClientError
        from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

        request = self._request(tool_use, grammar)
        parser = self._parser_class(self._tokenizer, request.tools)
        if tool_use.choice != "auto":
            # Whoever demands a call wants arguments that fit the tool's schema.
            parser.tool_strict_level = ToolStrictLevel.PARAMETER
        try:
            request = parser.adjust_request(request)
            outputs = request.extract_structured_outputs()
        except (ValueError, TypeError, VLLMClientError) as error:
            raise RequestRefused(str(error)) from error
        return Constraint(_grammar(outputs), request.skip_special_tokens)

    def open(self, tool_use: ToolUse | None, prompt_token_ids: Sequence[int], n: int) -> ReplyReader:
        request = self._request(tool_use or ToolUse((), "none", parallel=True), None)
        parsers = [self._parser_class(self._tokenizer, request.tools) for _ in range(n)]
        return ReplyReader(parsers, request, list(prompt_token_ids), self.tells_reasoning)

    def _request(self, tool_use: ToolUse, grammar: Grammar | None) -> Any:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        fields: dict[str, Any] = {"messages": [{"role": "user", "content": ""}], "model": "m"}
        if tool_use.tools:
            fields |= {
                "tools": list(tool_use.tools),
                "tool_choice": tool_use.choice,
                "parallel_tool_calls": tool_use.parallel,
            }
        if grammar is not None and grammar.kind == "json_object":
            fields["response_format"] = {"type": "json_object"}
        elif grammar is not None:
            schema = msgspec.json.decode(grammar.text)
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema},
            }
        try:
            return ChatCompletionRequest(**fields)
        except ValueError as error:
            raise RequestRefused(str(error)) from error


@dataclass(frozen=True, slots=True)
class Constraint:
    grammar: Grammar | None
    skip_special_tokens: bool


class ReplyReader:
    """Reads the answers to one request."""

    def __init__(
        self, parsers: list[Any], request: Any, prompt_token_ids: list[int], tells_reasoning: bool
    ) -> None:
        self._parsers = parsers
        self._tells_reasoning = tells_reasoning
        self._request = request
        self._prompt_token_ids = prompt_token_ids
        self._token_ids: list[list[int]] = [[] for _ in parsers]
        self._called_tools: set[int] = set()

    def read(self, delta: Delta) -> Delta:
        """The same delta with its text told apart. Raises `RequestFailed` when the parser cannot go on."""
        finished = delta.finish_reason is not None
        token_ids = list(delta.token_ids)
        self._token_ids[delta.index] += token_ids
        try:
            found = self._parsers[delta.index].parse_delta(
                delta.text, token_ids, self._request, self._prompt_token_ids, finished=finished
            )
        except Exception as error:
            log.exception("vLLM's reply parser failed")
            raise RequestFailed(f"the reply parser failed: {error}") from error
        calls = tuple(_piece(call) for call in found.tool_calls) if found and found.tool_calls else ()
        if calls:
            self._called_tools.add(delta.index)
        reason = delta.finish_reason
        if reason == "stop" and delta.index in self._called_tools:
            reason = "tool_calls"
        return msgspec.structs.replace(
            delta,
            text=(found.content if found else None) or "",
            reasoning=(found.reasoning if found else None) or "",
            tool_calls=calls,
            finish_reason=reason,
        )

    @property
    def reasoning_tokens(self) -> int | None:
        """None where no parser tells them from the answer's."""
        if not self._tells_reasoning:
            return None
        counts: list[int] = [
            parser.count_reasoning_tokens(token_ids)
            for parser, token_ids in zip(self._parsers, self._token_ids, strict=True)
        ]
        return sum(counts)


def _piece(call: Any) -> ToolCallPiece:
    function = call.function
    return ToolCallPiece(
        index=call.index,
        id=call.id,
        name=function.name if function else None,
        arguments=(function.arguments if function else None) or "",
    )


def _grammar(outputs: Any) -> Grammar | None:
    if outputs is None:
        return None
    if outputs.structural_tag is not None:
        return Grammar("structural_tag", outputs.structural_tag)
    if outputs.json is not None:
        schema = outputs.json
        return Grammar(
            "json_schema", schema if isinstance(schema, str) else msgspec.json.encode(schema).decode()
        )
    if outputs.json_object:
        return Grammar("json_object")
    raise RequestRefused("the reply parser asks for a grammar that is not supported")
