"""The tests are worth more because annotations are enforced while they run; this shows that they are."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from anamorph.spatial.field import compose


def test_displacements_of_different_shapes_are_refused_by_their_annotation() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="second"):
        compose(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 5, 4))
