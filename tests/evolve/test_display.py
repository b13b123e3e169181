"""What people see: figures, tables, trees, portraits, the live table; on any width, with and without a terminal."""

from __future__ import annotations

import doctest
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

import evolve.display.portrait
import evolve.display.text
from evolve import events
from evolve.display.console import Page
from evolve.display.live import LiveDisplay
from evolve.display.overview import overview
from evolve.display.portrait import portrait
from evolve.display.table import COLUMNS, candidates
from evolve.display.text import came_about, clean, count, duration, line_of, verdict, where
from evolve.display.tree import family
from evolve.display.watching import Watching

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def entry(identity: int, parent: int | None = 0, **changes: Any) -> dict[str, Any]:
    mode = {"error": 1e-15, "floor": 1e-15, "tolerance": 1e-12, "power": 0.1, "verdict": "pass"}
    probe = {"batch": 8, "source": "task", "seed": 3}
    proof = {"dtype": "float64", "probe": probe, "stirred": False, "eval": mode, "train": mode}
    made = {
        "id": identity,
        "parent": parent,
        "operator": "widen",
        "site": {"space": f"conv{identity}"},
        "preserves": "exact",
        "certificate": proof,
        "teaching": {"teachers": [0], "reason": None},
        "status": "done",
        "failure": None,
        "val_accuracy": 0.5 + identity / 100,
        "parameters": 12_000 + identity,
        "macs": 1_200_000,
        "seconds": 3.25,
        "worker": "local-0",
        "seed": 17,
    }
    if identity == 0:
        made |= dict.fromkeys(("parent", "operator", "site", "preserves", "certificate"))
    return made | changes


FAMILY = [
    entry(0),
    entry(1),
    entry(2, 1),
    entry(
        3,
        1,
        status="failed",
        val_accuracy=None,
        failure={"kind": "diverged", "message": "the loss is \x1b[31mnan\nnow"},
    ),
    entry(4, 2, status="running", val_accuracy=None, seconds=None, worker=None),
    entry(5, 0, status="pending", val_accuracy=None, seconds=None, worker=None),
]


def drawn(renderable: Any, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False, highlight=False)
    console.print(renderable, no_wrap=isinstance(renderable, Text) or None, overflow="ellipsis")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    yield stream


def test_examples_in_the_code_hold() -> None:
    for module in (evolve.display.text, evolve.display.portrait):
        found = doctest.testmod(module)
        assert found.attempted and not found.failed


def test_figures_are_short() -> None:
    assert [count(number) for number in (0, 9_999, 10_000, 999_499, 999_600, 12_345_678)] == [
        "0",
        "9999",
        "10.0k",
        "999k",
        "1.00M",
        "12.3M",
    ]
    assert [duration(seconds) for seconds in (0.04, 59.94, 60, 3_600)] == [
        "0.0 s",
        "59.9 s",
        "1:00",
        "1:00:00",
    ]


def test_text_from_elsewhere_cannot_steer_a_terminal() -> None:
    assert not CONTROL.search(clean("\x1b]0;title\x07 a\x9bb\r\nc"))
    assert where({"from": "a", "to": ["b", "\x1b[2J"]}) == "from a to b,?[2J"


def test_verdicts_of_both_modes() -> None:
    assert verdict(None) == "–"
    assert verdict(entry(1)["certificate"]) == "pass"
    proof = entry(1)["certificate"]
    assert verdict({**proof, "train": {**proof["train"], "verdict": "unreached"}}) == "pass/unreached"


def test_a_line_starts_at_the_starting_network() -> None:
    assert [member["id"] for member in line_of(FAMILY, 4)] == [0, 1, 2, 4]
    assert line_of(FAMILY, None) == []
    assert came_about(line_of(FAMILY, 2)) == "0 -> 1 widen conv1 -> 2 widen conv2"


@pytest.mark.parametrize("width", [10, 30, 60, 80, 200])
def test_the_table_fits_and_keeps_what_matters_most(width: int) -> None:
    text = drawn(candidates(FAMILY, width, [2]), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert len(text.splitlines()) == 1 + len(FAMILY)
    if width >= 30:
        assert "52.00 %" in text
    if width == 200:
        assert all(column.title in text for column in COLUMNS)
    assert not CONTROL.search(text)


@pytest.mark.parametrize("width", [10, 60, 160])
def test_the_tree_shows_everybody_once(width: int) -> None:
    text = "".join(drawn(line, width) for line in family(FAMILY, 2, width))
    assert len(text.splitlines()) == len(FAMILY)
    assert all(len(line) <= width for line in text.splitlines())
    if width == 160:
        assert "failed, diverged: the loss is ?[31mnan now" in text
        assert text.count("<- best") == 1
        assert "│ └ 2 widen conv2" in text or "  └ 2 widen conv2" in text
    assert not CONTROL.search(text)


def test_a_long_family_line_does_not_overflow() -> None:
    line = [entry(0), *(entry(number, number - 1) for number in range(1, 1500))]
    lines = list(family(line, 1499, 80))
    assert len(lines) == 1500
    assert all("parameters" in shown.plain and len(shown.plain) < 100 for shown in lines)
    assert lines[-1].plain.startswith("…1499 └ 1499 widen conv1499")


def test_the_portrait_tells_line_certificate_and_training() -> None:
    curves = [{"epoch": 1, "train_loss": 1.5, "val_accuracy": 0.5}]
    parts = list(portrait(line_of(FAMILY, 2), 100, choices={"width": 12}, recipe={"lr": 0.05}, curves=curves))
    text = "".join(part + "\n" if isinstance(part, str) else drawn(part) for part in parts)
    for said in (
        "candidate 2: done",
        "52.00 %",
        "widen",
        "conv1",
        "1e-12",
        "pass",
        "width 12",
        "lr 0.05",
        "50.00 %",
    ):
        assert said in text
    assert list(portrait([FAMILY[0]], 100))


def test_the_overview_names_the_best() -> None:
    best = {"id": 2, "val_accuracy": 0.52, "test_accuracy": None, "parameters": 12_002, "macs": 1_200_000}
    status = {"candidates": {"done": 3, "failed": 1}, "best": best, "strategy": "aging", "seed": 0}
    text = "\n".join(overview("runs/0001", status))
    assert "4: 3 done, 1 failed" in text
    assert "candidate 2: validation 52.00 %, test split not touched yet" in text
    assert "none yet" in "\n".join(overview("runs/0001", {**status, "best": None}))


def happenings(path: Any) -> list[events.Event]:
    settings = {
        "candidates": 3,
        "model": "convnet",
        "data": "digits",
        "strategy": "aging",
        "pool": "local",
        "seed": 0,
    }
    waiting = entry(1, status="pending", val_accuracy=None, seconds=None, worker=None)
    return [
        events.Opened(path, settings, False, (entry(0, status="pending", val_accuracy=None),)),
        events.Dispatched(entry(0, status="running", val_accuracy=None), 1),
        events.Finished(entry(0), 0),
        events.Proposed(waiting),
        events.Dispatched({**waiting, "status": "running"}, 2),
        events.Progress(1, 1, 3, {"val_accuracy": 0.4}),
        events.Finished(entry(1), 1),
        events.Finished(FAMILY[3], 1),
        events.Measuring("the winner and its control on the test split"),
        events.Ended("complete", "all candidates are in", ()),
    ]


def test_decoding_is_told_on_the_error_stream_and_a_tenth_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Watching(Page()) as watching:
        for done in range(1, 201):
            watching(events.Decoding(done, 200))
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.splitlines() == [
        f"decoding images: {done} of 200" for done in range(20, 201, 20)
    ]


def test_plain_output_is_one_line_an_event(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    page = Page()
    with Watching(page) as watching:
        for event in happenings(tmp_path):
            watching(event)
    page.draw(candidates(FAMILY, page.width, [2]))
    page.show(family(FAMILY, 2, page.width))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path)
    assert lines[1] == "3 candidates from convnet on digits, strategy aging, pool local, seed 0"
    assert "0, the starting network, 12.0k parameters: training" in lines[2]
    assert "1 = widen conv1 of 0, certificate pass: training, attempt 2" in lines[4]
    assert "2/3  1: 51.00 %" in lines[5] and lines[5].endswith("the best so far")
    assert lines[8] == "all candidates are in"
    assert not CONTROL.search("\n".join(lines).replace("\n", ""))


def test_on_a_terminal_the_table_is_redrawn_and_left_behind(terminal: Terminal, tmp_path: Any) -> None:
    page = Page(terminal)
    assert page.live and page.width == 60
    with Watching(page) as watching:
        for event in happenings(tmp_path):
            watching(event)
    text = terminal.getvalue()
    assert text.startswith(str(tmp_path))
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert "best: 51.00 %" in text


def test_an_interrupt_gives_the_terminal_back(terminal: Terminal, tmp_path: Any) -> None:
    with pytest.raises(KeyboardInterrupt), Watching(Page(terminal)) as watching:
        watching(happenings(tmp_path)[0])
        raise KeyboardInterrupt
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


def test_no_color_is_honoured(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    page = Page(terminal)
    page.show(family(FAMILY, 2, page.width))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.getvalue())


def test_a_simple_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    page = Page(terminal)
    assert not page.live
    page.draw(candidates(FAMILY, page.width, [2]))
    assert not CONTROL.search(terminal.getvalue().replace("\n", ""))


def test_the_live_table_shows_the_latest_that_fit(terminal: Terminal) -> None:
    display = LiveDisplay(Page(terminal), 500)
    for number in range(300):
        display.candidate(entry(number, 0, val_accuracy=0.5))
    text = drawn(display, 60)
    assert len(text.splitlines()) <= 30
    assert "299" in text and "300/500" in text
    assert "best: 50.00 %" in text
