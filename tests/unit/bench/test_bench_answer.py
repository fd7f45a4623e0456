from __future__ import annotations

import random

import pytest
from bench_wire import HEAD, LAST_CHUNK, answer_events, chunked, delta, event, usage, whole

from bench.answer import Turn, is_over, read_answer


def turn_of(*pieces: bytes) -> Turn:
    """Piece k was read k seconds after the request was sent."""
    return Turn(sent_at=0.0, pieces=list(pieces), times=[float(at) for at in range(1, len(pieces) + 1)])


def test_a_complete_answer_has_a_frame_for_each_token_and_no_fault() -> None:
    answer = read_answer(turn_of(whole(answer_events(5))))
    assert len(answer.frame_times) == answer.tokens == 5
    assert answer.fault(5) is None


def test_role_chunks_comments_and_the_finish_are_no_tokens_and_no_first_token() -> None:
    silent = [b": keep-alive\n\n", delta({"role": "assistant", "content": ""}), delta({"content": None})]
    first, last = delta({"content": "x"}), [delta({}, "stop"), usage(1), event("[DONE]")]
    pieces = [HEAD, *map(chunked, silent), chunked(first), b"".join(map(chunked, last)) + LAST_CHUNK]
    answer = read_answer(turn_of(*pieces))
    assert answer.frame_times == [5.0]
    assert answer.ttft_s == 5.0
    assert answer.fault(1) is None


@pytest.mark.parametrize("seed", range(50))
def test_counts_do_not_depend_on_where_reads_and_chunks_are_split(seed: int) -> None:
    source = random.Random(seed)
    body = b"".join(answer_events(7))
    cuts = sorted(source.sample(range(1, len(body)), 12))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    raw = whole(chunks)
    cuts = sorted(source.sample(range(len(b"HTTP/1.1 200"), len(raw)), 20))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    answer = read_answer(turn_of(*pieces))
    assert answer.fault(7) is None
    assert len(answer.frame_times) == 7
    assert answer.frame_times == sorted(answer.frame_times)


def test_a_frame_has_the_time_of_its_last_byte() -> None:
    frame = chunked(delta({"content": "late"}))
    answer = read_answer(turn_of(HEAD + frame[:20], frame[20:-10], frame[-10:], LAST_CHUNK))
    assert answer.frame_times == [3.0]


def test_merged_frames_are_still_counted_one_by_one_with_one_time() -> None:
    merged = b"".join(answer_events(4))
    answer = read_answer(turn_of(HEAD, chunked(merged) + LAST_CHUNK))
    assert answer.frame_times == [2.0] * 4
    assert answer.fault(4) is None


def test_several_tokens_in_one_frame_are_counted_by_the_usage() -> None:
    events = [delta({"content": "three in one"}), delta({}, "stop"), usage(3), event("[DONE]")]
    answer = read_answer(turn_of(whole(events)))
    assert (len(answer.frame_times), answer.tokens) == (1, 3)
    assert answer.fault(3) is None


def test_lines_may_end_in_carriage_returns() -> None:
    events = [piece.replace(b"\n", b"\r\n") for piece in answer_events(3)]
    assert read_answer(turn_of(whole(events))).fault(3) is None


def test_an_answer_that_was_cut_short_has_what_came_and_says_what_it_lacks() -> None:
    raw = whole(answer_events(6))
    cut = raw.index(b" w4")
    answer = read_answer(turn_of(raw[:cut]))
    assert len(answer.frame_times) == 4
    assert answer.fault(6) == "no usage"


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([*answer_events(4)[:-1]], "no [DONE]"),
        ([*answer_events(4)[:-3], *answer_events(4)[-2:]], "0 finishes"),
        ([*answer_events(4)[:-2], *answer_events(4)[-3:]], "2 finishes"),
        (answer_events(3), "3 tokens instead of 4"),
        ([*answer_events(4)[:2], *answer_events(4)], "5 frames for 4 tokens"),
        ([event({"error": {"message": "no"}}), event("[DONE]")], "error: no"),
    ],
)
def test_each_way_to_be_incomplete_is_named(events: list[bytes], fault: str) -> None:
    assert read_answer(turn_of(whole(events))).fault(4) == fault


def test_a_refusal_is_named_by_its_status_line() -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"
    assert read_answer(turn_of(refusal)).fault(1) == "HTTP/1.1 429 Too Many Requests"
    assert read_answer(turn_of(b"")).fault(1) == "no answer"


def test_the_end_is_seen_wherever_it_is_split_and_only_there() -> None:
    raw = whole(answer_events(2))
    for cut in range(1, 10):
        assert is_over([raw[:-cut], raw[-cut:]])
        assert not is_over([raw[:-cut]])
    assert not is_over([HEAD])
