"""Messages come out of the stream as they went in, however it is cut."""

from __future__ import annotations

import os
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.errors import FormatError
from runners.frames import BEAT, LARGEST, OUTCOME, REPORT, Splitter, pack, write_all

messages = st.lists(st.tuples(st.sampled_from([BEAT, OUTCOME, REPORT]), st.binary(max_size=50)), max_size=5)


@given(messages, st.integers(1, 20))
def test_any_cut_of_the_stream_gives_the_same_messages(sent: list[tuple[bytes, bytes]], step: int) -> None:
    stream = b"".join(pack(kind, len(payload)) + payload for kind, payload in sent)
    splitter, found = Splitter(), []
    for start in range(0, len(stream), step):
        splitter.feed(stream[start : start + step])
        found += list(splitter)
    assert found == sent


@pytest.mark.parametrize(
    "header", [struct.pack("<Qc", LARGEST + 1, OUTCOME), struct.pack("<Qc", 1, b"?"), b"Traceback "]
)
def test_anything_else_is_refused(header: bytes) -> None:
    splitter = Splitter()
    splitter.feed(header)
    with pytest.raises(FormatError, match="no message"):
        list(splitter)


def test_more_than_a_pipe_holds_is_written_whole() -> None:
    source, sink = os.pipe()
    data = os.urandom(1_000_000)
    writer = threading.Thread(target=write_all, args=(sink, pack(OUTCOME, len(data)), data))
    writer.start()
    splitter = Splitter()
    found: list[tuple[bytes, bytes]] = []
    while not found:
        splitter.feed(os.read(source, 4096))
        found = list(splitter)
    writer.join()
    os.close(source)
    os.close(sink)
    assert found == [(OUTCOME, data)]
