"""The way through MONAI's blocks gives what MONAI's own gives."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from torch import nn

from anamorph.networks.convolution import Conv3d, ConvTranspose3d
from anamorph.networks.dynunet import DynamicUNet, plan_stages

SHAPES = {"2d": ((48, 32), (1.0, 1.0)), "3d": ((16, 32, 32), (3.0, 1.0, 1.0))}


@pytest.mark.parametrize("case", list(SHAPES))
def test_same_results_with_and_without_deep_supervision(case, generator):
    shape, spacing = SHAPES[case]
    stages = plan_stages(shape, spacing)
    ours = DynamicUNet(2, 3, stages, 4, 8, True)
    theirs = DynUNet(
        len(shape), 2, 3, stages.kernels, stages.strides, stages.strides[1:],
        filters=[4] + [8] * (len(stages.strides) - 1), norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True, deep_supr_num=len(stages.strides) - 3,
    )  # fmt: skip
    blocks = [theirs.input_block, *theirs.downsamples, theirs.bottleneck, *theirs.upsamples]
    heads = [theirs.output_block, *theirs.deep_supervision_heads]
    pairs = zip([*ours.encode, *ours.decode, *ours.heads], [*blocks, *heads], strict=True)
    for mine, yours in pairs:
        yours.load_state_dict(mine.state_dict())
    image = torch.rand(2, 2, *shape, generator=generator)
    torch.testing.assert_close(torch.stack(ours(image), 1), theirs(image))
    torch.testing.assert_close(ours.eval()(image)[0], theirs.eval()(image))
    assert len(ours.state_dict()) == len({p.data_ptr() for p in ours.parameters()})


def test_its_convolutions_are_those_arranged_for_a_cpu():
    network = DynamicUNet(1, 2, plan_stages((12, 12, 12), (1.0,) * 3), 4, 8, False, "max")
    found = {type(layer) for layer in network.modules() if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d))}
    assert found <= {Conv3d, ConvTranspose3d}
    assert len(found) == 2
