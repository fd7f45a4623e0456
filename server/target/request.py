"""What the target takes from a request. The rest of OpenAI's fields change nothing here and are ignored on purpose:

an answer has exactly as many tokens as were asked for, as with `ignore_eos`, so `min_tokens`, `stop`, `temperature`
and their like have nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from server.errors import InvalidBody, InvalidParameter
from server.target.vocabulary import FourByteVocabulary

_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_One = Annotated[int, msgspec.Meta(ge=1, le=1)]


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Part(msgspec.Struct):
    text: str = ""


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Common(msgspec.Struct, kw_only=True):
    max_tokens: _Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: _One | None = None


class ChatBody(Common, kw_only=True):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: _Count | None = None


class CompletionBody(Common, kw_only=True):
    prompt: str | list[str | int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, understood."""

    prompt_token_ids: list[int]
    tokens: int
    stream: bool
    include_usage: bool


Body = TypeVar("Body", bound=Common)

_chat = msgspec.json.Decoder(ChatBody)
_completion = msgspec.json.Decoder(CompletionBody)


def read_chat(body: bytes, vocabulary: FourByteVocabulary, default_tokens: int) -> Wanted:
    """Raises `InvalidBody` or `InvalidParameter`."""
    chat = _decode(_chat, body)
    token_ids = vocabulary.render((message.role, message.text) for message in chat.messages)
    return _wanted(chat, token_ids, chat.max_completion_tokens or chat.max_tokens or default_tokens)


def read_completion(body: bytes, vocabulary: FourByteVocabulary, default_tokens: int) -> Wanted:
    """Raises `InvalidBody` or `InvalidParameter`."""
    completion = _decode(_completion, body)
    prompt = completion.prompt[0] if len(completion.prompt) == 1 else completion.prompt
    if isinstance(prompt, str):
        token_ids = vocabulary.encode(prompt)
    else:
        token_ids = [token for token in completion.prompt if isinstance(token, int)]
        if not token_ids or len(token_ids) != len(completion.prompt):
            raise InvalidParameter("prompt: expected one text or one list of token ids", param="prompt")
    return _wanted(completion, token_ids, completion.max_tokens or default_tokens)


def _wanted(body: Common, token_ids: list[int], tokens: int) -> Wanted:
    usage = body.stream_options is not None and body.stream_options.include_usage
    return Wanted(token_ids, tokens, bool(body.stream), usage)


def _decode(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"the body is not what was expected: {error}") from None
    except msgspec.DecodeError as error:
        raise InvalidBody(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidBody("the body is nested too deeply") from None
