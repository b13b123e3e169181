"""The family of a run as a tree: who came from whom, the best one's line highlighted, failures marked.

A level takes two columns, and where a family line is deeper than half the width there is, its number of generations
stands in place of the guides: thousands of generations stay readable, and nobody is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from rich.text import Text

from evolve.display.text import Entry, accuracy, count, failure, line_of, where

__all__ = ["family"]


def family(entries: Iterable[Entry], best: int | None, width: int) -> Iterator[Text]:
    """One line for each of `entries`, children below their parents, for `width` columns.

    The line that leads to the candidate `best` is bold and green; it comes last among its siblings, so that it can be
    followed at the edge of the tree.
    """
    known = {entry["id"]: entry for entry in entries}
    line = {entry["id"] for entry in line_of(known.values(), best)}
    children: defaultdict[int | None, list[int]] = defaultdict(list)
    for identity, entry in sorted(known.items()):
        children[entry["parent"] if entry["parent"] in known else None].append(identity)
    for siblings in children.values():
        siblings.sort(key=lambda identity: (identity in line, identity))
    waiting: list[tuple[int, str, str]] = [(root, "", "") for root in reversed(children[None])]
    while waiting:
        identity, before, corner = waiting.pop()
        entry = known[identity]
        yield _guides(before + corner, width).append_text(_label(entry, identity in line, identity == best))
        below = before + {"": "", "├ ": "│ ", "└ ": "  "}[corner]
        siblings = children[identity]
        waiting += [(child, below, "└ " if child == siblings[-1] else "├ ") for child in reversed(siblings)]


def _guides(guides: str, width: int) -> Text:
    shown = f"…{len(guides) // 2} {guides[-2:]}" if len(guides) > width // 2 else guides
    text = Text(no_wrap=True, overflow="ellipsis")
    return text.append(shown, style="dim")


def _label(entry: Entry, in_line: bool, is_best: bool) -> Text:
    operator = entry["operator"] or "starting network"
    label = Text(f"{entry['id']} {operator} {where(entry['site'])}" if entry["site"] else f"{entry['id']} {operator}")
    label.append(f"  {_fate(entry)}")
    if is_best:
        label.append("  <- best")
    if in_line:
        label.stylize("bold green")
    elif entry["status"] == "failed":
        label.stylize("red")
    return label


def _fate(entry: Entry) -> str:
    if entry["status"] == "failed":
        return f"failed, {failure(entry)}"
    if entry["status"] != "done":
        return str(entry["status"])
    return f"{accuracy(entry['val_accuracy'])}, {count(entry['parameters'])} parameters"
