"""The page of an atlas shows what there is, leaves out what there is not, and escapes whatever has a name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anamorph.data.image import Image
from anamorph.inference.atlas_folder import Atlas, AtlasCard, CaseFacts, RoundFacts
from anamorph.report.atlas import render_atlas
from anamorph.spatial.grid import Grid

HOSTILE = "<script>alert(1)</script>"


def facts(number: int, kind: str = "deformable") -> RoundFacts:
    return RoundFacts(
        number=number, kind=kind, cases=3, change=0.5 / number, deformation_mm=1.5, mean_deformation_mm=0.02,
        sharpness=0.1, relative_sharpness=0.5 + 0.1 * number,
    )  # fmt: skip


def an_atlas(shape: tuple[int, ...], labels: bool = True) -> Atlas:
    grid = Grid.from_spacing(shape, 2.0)
    nodes = np.linalg.norm((grid.voxels() / shape - 0.5), axis=1).reshape(shape)
    image = Image(torch.from_numpy((nodes < 0.3).astype(np.float32))[None], grid)
    names = {1: HOSTILE} if labels else {}
    cases = tuple(
        CaseFacts(case=name, similarity=0.5, deformation_mm=1.0, z_dissimilarity=z, z_deformation=0.0, apart=z > 3.5)
        for name, z in ((f"{HOSTILE}_mr", 5.0), ("b_mr", 0.0))
    )
    card = AtlasCard(
        modality="mr", shape=shape, affine=tuple(map(tuple, grid.affine.tolist())), labels=names, labelled=2 * labels,
        left_out={"c_mr": HOSTILE}, rounds=(facts(1, "affine"), facts(2), facts(3)), cases=cases, settings={"seed": 0},
    )  # fmt: skip
    soft = torch.stack([1 - image.data[0], image.data[0]]) if labels else None
    return Atlas(image, names, soft, HOSTILE, card)


@pytest.mark.parametrize("shape", [(20, 24), (16, 18, 20)])
def test_the_page_of_a_group(shape: tuple[int, ...]) -> None:
    atlas = an_atlas(shape)
    evolution = [(f"round {n}", atlas.image.data[0].numpy()) for n in range(30)]
    page = render_atlas(atlas, evolution)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('<figure class="stage">') == (1 if len(shape) == 2 else 3)
    assert page.count('class="label" d="M') == (1 if len(shape) == 2 else 3)
    assert page.count("The template: ") == 12
    assert page.count('<figure class="curve-chart">') == 3
    assert ("Cavities" in page) == (len(shape) == 3)
    assert "stands apart" in page
    assert 'src="http' not in page


def test_what_there_is_not_is_left_out() -> None:
    plain = an_atlas((16, 18), labels=False)
    bare = render_atlas(Atlas(plain.image, name="bare"))
    assert 'id="atlas"' in bare
    for section in ("rounds", "topology", "cases"):
        assert f'id="{section}"' not in bare
    assert 'id="topology"' not in render_atlas(plain)
