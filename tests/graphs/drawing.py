"""Random valid graphs for Hypothesis: chains with joins, groups, shared tensors and several heads."""

from __future__ import annotations

from hypothesis import strategies as st

from graphs.draft import Draft
from graphs.structure import Graph

ALIKE = ("relu", "gelu", "identity", "dropout", "batch_norm")
JOINING = ("add", "multiply", "mean", "concat", "gate", "by_mode")


@st.composite
def graphs(draw: st.DrawFn, largest: int = 12) -> Graph:
    """A graph over images (4, 6, 6) whose every node leads to a head."""
    draft = Draft(born=draw(st.integers(0, 3)))
    values = [draft.input((4, 6, 6))]
    convolutions: list[str] = []
    for _ in range(draw(st.integers(0, largest))):
        source = draw(st.sampled_from(values))
        kind = draw(st.sampled_from((*ALIKE, *JOINING, "conv2d", "tied")))
        if kind == "tied" and convolutions:
            twin = draft.nodes[draw(st.sampled_from(convolutions))]
            values.append(draft.add("conv2d", source, tensors=twin.tensors, **twin.settings))
        elif kind in ("conv2d", "tied"):
            settings = {"groups": draw(st.sampled_from([1, 2, 4])), "bias": draw(st.booleans())}
            values.append(draft.add("conv2d", source, out=4, kernel=draw(st.sampled_from([1, 3])), **settings))
            convolutions.append(values[-1])
        elif kind in JOINING:
            others = draw(
                st.lists(st.sampled_from(values), min_size=1, max_size=1 if kind in ("gate", "by_mode") else 3)
            )
            joined = draft.add(kind, [source, *others])
            if kind == "concat":
                joined = draft.add("conv2d", joined, out=4, kernel=1)
            values.append(joined)
        else:
            values.append(draft.add(kind, source))
    read = {source for node in draft.nodes.values() for source in node.inputs}
    for number, value in enumerate(value for value in values if value not in read):
        flat = draft.add("flatten", draft.add("adaptive_avg_pool2d", value, size=2))
        draft.head(draft.add("linear", flat, out=3), f"head{number}", training_only=number > 0 and draw(st.booleans()))
    return draft.finish()
