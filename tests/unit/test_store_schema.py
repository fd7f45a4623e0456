"""Bodies of the vector store endpoints: what the published schema allows is what the server takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from retrieval.errors import InvalidFilter
from retrieval.filters import parse_filter
from server.api.body import to_struct
from server.api.file_batches import _files_of
from server.api.openapi import document
from server.api.quota import Places
from server.api.store_schema import REQUESTS, check_file_ids, chunk_sizes
from server.errors import Busy, FirstwordError, InvalidParameter
from server.settings import load_settings

SETTINGS = load_settings()
DOCUMENT = document(SETTINGS, "m")
SHAPES = {shape.__name__: shape for shape in REQUESTS}
MOST = SETTINGS.files.max_files_per_batch

STATIC = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}
COMPARE = {"type": "eq", "key": "k", "value": "v"}
ATTRIBUTES: list[Any] = [
    {},
    {"text": "x" * 512, "whole": 5, "number": 0.5, "truth": True},
    {"k" * 64: ""},
    {"k" * 65: ""},
    {"": 1},
    {"k": "x" * 513},
    {"k": None},
    {"k": {}},
    {str(number): number for number in range(16)},
    {str(number): number for number in range(17)},
]
CHUNKING: list[Any] = [
    {"type": "auto"},
    {"type": "auto", "static": {}},
    {"type": "other"},
    {},
    STATIC,
    {"type": "static"},
    {"type": "static", "static": {"max_chunk_size_tokens": 99, "chunk_overlap_tokens": 0}},
    {"type": "static", "static": {"max_chunk_size_tokens": 4_097, "chunk_overlap_tokens": 0}},
    {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": -1}},
]
FILE_IDS: list[Any] = [
    [],
    ["a"],
    ["a", "b"],
    ["a", "a"],
    [""],
    ["x" * 257],
    [1],
    [str(n) for n in range(MOST + 1)],
]
VALUES: dict[str, list[Any]] = {
    "name": ["", "x" * 256, "x" * 257],
    "description": ["x" * 2_048, "x" * 2_049],
    "file_id": ["a", "", "x" * 257],
    "file_ids": FILE_IDS,
    "files": [
        [{"file_id": "a"}],
        [{"file_id": "a", "attributes": {"k": 1}, "chunking_strategy": {"type": "auto"}}],
        [{"file_id": "a", "x": 1}],
        [{}],
        [],
    ],
    "metadata": [{}, {"k": "x" * 512}, {"k": "x" * 513}, {"k": 1}, {"k" * 65: ""}, {"": ""}],
    "attributes": ATTRIBUTES,
    "chunking_strategy": CHUNKING,
    "expires_after": [
        {"anchor": "last_active_at", "days": 365},
        {"anchor": "last_active_at", "days": 366},
        {"anchor": "last_active_at", "days": 0},
        {"anchor": "created_at", "days": 1},
        {"anchor": "last_active_at"},
    ],
    "query": ["x", "", "x" * 4_096, "x" * 4_097, ["x"], [], [""], ["x"] * 16, ["x"] * 17],
    "max_num_results": [1, 50, 51, 0],
    "ranking_options": [
        {},
        {"ranker": "none", "score_threshold": 0},
        {"ranker": "default-2024-11-15", "score_threshold": 1},
        {"ranker": "best"},
        {"score_threshold": 1.1},
        {"hybrid_search": {}},
    ],
    "rewrite_query": [True, False],
    "filters": [
        COMPARE,
        COMPARE | {"value": 1.5},
        COMPARE | {"value": None},
        COMPARE | {"value": ["v"]},
        COMPARE | {"key": ""},
        COMPARE | {"more": 1},
        COMPARE | {"type": "gt"},
        COMPARE | {"type": "gt", "value": True},
        COMPARE | {"type": "in", "value": ["v", 1, True]},
        COMPARE | {"type": "in", "value": []},
        COMPARE | {"type": "nin", "value": "v"},
        COMPARE | {"type": "in", "value": [0] * 257},
        {"type": "or", "filters": [COMPARE, {"type": "and", "filters": [COMPARE]}]},
        {"type": "or", "filters": []},
        {"type": "and", "filters": [{}]},
        {},
    ],
    "unknown": [1],
}
WRONG: list[Any] = [None, True, 0, "x", [], {}]
NEEDED: dict[str, dict[str, Any]] = {
    "AttachFile": {"file_id": "a"},
    "ModifyFile": {"attributes": None},
    "CreateFileBatch": {"file_ids": ["a"]},
    "SearchVectorStore": {"query": "x"},
}


def refusal(shape: str, body: dict[str, Any]) -> str | None:
    """As the endpoints check it; None when nothing is wrong."""
    try:
        asked: Any = to_struct(json.dumps(body).encode(), SHAPES[shape])
        if shape == "SearchVectorStore" and asked.filters is not None:
            parse_filter(asked.filters)
        if shape in ("AttachFile", "CreateVectorStore", "CreateFileBatch"):
            chunk_sizes(asked.chunking_strategy)
        if shape == "CreateVectorStore":
            check_file_ids(asked.file_ids or [], "file_ids", MOST)
        if shape == "CreateFileBatch":
            check_file_ids([file.file_id for file in _files_of(asked)], "file_ids", MOST)
    except (FirstwordError, InvalidFilter) as error:
        return str(error) or "it says nothing"
    return None


def assert_judged_alike(shape: str, body: dict[str, Any]) -> None:
    validator = Draft202012Validator(DOCUMENT | {"$ref": f"#/components/schemas/{shape}"})
    refused = refusal(shape, body)
    assert validator.is_valid(body) == (refused is None), (shape, body, refused)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_value_by_itself_is_judged_alike(shape: str) -> None:
    assert_judged_alike(shape, {})
    for name, values in VALUES.items():
        for value in [*values, *WRONG]:
            assert_judged_alike(shape, NEEDED.get(shape, {}) | {name: value})
            assert_judged_alike(shape, {name: value})


@settings(max_examples=60)
@given(data=st.data())
def test_several_values_are_judged_alike(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(sorted(SHAPES)))
    names = data.draw(st.sets(st.sampled_from([*SHAPES[shape].__struct_fields__, "unknown"]), max_size=4))
    body = {name: data.draw(st.sampled_from([*VALUES[name], *WRONG])) for name in sorted(names)}
    assert_judged_alike(shape, NEEDED.get(shape, {}) | body)


def test_an_overlap_is_at_most_half_of_a_chunk() -> None:
    body = {"file_id": "a", "chunking_strategy": STATIC}
    attach: Any = to_struct(json.dumps(body).encode(), SHAPES["AttachFile"])
    assert chunk_sizes(attach.chunking_strategy) == (100, 50)
    more = json.dumps(body).replace("50", "51").encode()
    too_much: Any = to_struct(more, SHAPES["AttachFile"])
    with pytest.raises(InvalidParameter) as caught:
        chunk_sizes(too_much.chunking_strategy)
    assert caught.value.param == "chunking_strategy.static.chunk_overlap_tokens"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"file_id": "a", "attributes": {"k": 1e400}}', "attributes"),
        (b'{"file_id": "a", "attributes": {"k": NaN}}', None),
        (b'{"file_id": "a", "file_id": "b"}', "file_id"),
        (b'{"file_id": "a", "attributes": {"k": "\\ud800"}}', None),
        (b"[]", None),
        (b"", None),
    ],
)
def test_what_is_not_json_that_can_be_stored_is_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(FirstwordError) as caught:
        to_struct(body, SHAPES["AttachFile"])
    assert (caught.value.status, caught.value.param) == (400, param)


def test_calls_under_way_are_bounded_and_their_places_come_back() -> None:
    places = Places("uploads", most=3, most_per_tenant=2)
    for _ in range(3):
        with places.take("a"), places.take("a"):
            with pytest.raises(Busy), places.take("a"):
                pass
            with places.take("b"), pytest.raises(Busy), places.take("c"):
                pass
