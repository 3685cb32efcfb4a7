"""What branches in threads print, each into its own log."""

from __future__ import annotations

import io
import sys

import pytest

from executors import capture


class Gone(io.StringIO):
    """A stream of a program that has ended."""

    def flush(self) -> None:
        raise ValueError("flush of what is gone")


def test_who_closes_the_shared_stream_closes_it_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch may close what it prints to, or keep it until nothing is left that it could be flushed to."""
    stream = Gone()
    monkeypatch.setattr(sys, "stdout", stream)
    with capture.install():
        kept = sys.stdout
        kept.close()
        print("still there")
    kept.close()
    assert not stream.closed
    assert stream.getvalue() == "still there\n"
