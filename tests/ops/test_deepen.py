"""What follows an inserted layer changes nothing yet, and fits the activation in front of it."""

from __future__ import annotations

import numpy
import pytest

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from ops import MUTATIONS, certify
from ops.errors import BadChoice
from tests.strategies import lively

DEEPEN = MUTATIONS["deepen"]
ACTIVATIONS = [name for name, kind in KINDS.items() if kind.activation]


def bent(activation: str) -> Genome:
    draft = Draft()
    image = draft.add(activation, draft.add("conv2d", draft.input((3, 5, 5)), out=4))
    draft.head(draft.add("linear", draft.add("flatten", image), out=3))
    return lively(draft.finish(), 1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_can_be_deepened_behind(activation: str) -> None:
    parent = bent(activation)
    (site,) = DEEPEN.sites(parent)
    draws = numpy.random.default_rng(0)
    drawn = {str(DEEPEN.choose(parent, site.place, draws)["activation"]) for _ in range(40)}
    if KINDS[activation].idempotent:
        assert drawn == {"same"}
    else:
        assert drawn == ({"blend"} if "sigmoid" in activation else {"blend", "prelu"})
    for choice in (*drawn, "none"):
        child = DEEPEN.apply(parent, site, draws, choices={"activation": choice})
        certificate = certify(parent, child)
        assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass"), choice
    wrong = "blend" if KINDS[activation].idempotent else "same"
    with pytest.raises(BadChoice, match=f"activation = '{wrong}'"):
        DEEPEN.apply(parent, site, draws, choices={"activation": wrong})
