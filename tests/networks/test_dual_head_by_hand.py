"""The dual-head network: its size, and its two answers."""

from __future__ import annotations

import pytest
import torch

from anamorph.networks.dual_head import DualHeadNetwork
from anamorph.networks.registration_unet import RegistrationUNet
from anamorph.spatial.field import exponential
from tests.networks.test_translator_by_hand import size

ENCODER, DECODER = (16, 32, 32, 32, 32), (32, 32, 32, 32, 16, 16)


def test_it_is_the_unet_and_two_convolutions_of_sixteen_features_to_three() -> None:
    net = DualHeadNetwork(3, 1, ENCODER, DECODER)
    assert size(net) == size(RegistrationUNet(3, 2, ENCODER, DECODER, "stride")) + 2 * (16 * 3 * 27 + 3) == 321_718


@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 12)])
def test_each_head_answers_from_the_features_of_moving_and_fixed(shape: tuple[int, ...], device: torch.device) -> None:
    torch.manual_seed(0)
    net = DualHeadNetwork(len(shape), 1, (2, 3), (3, 2)).to(device)
    fixed, moving = torch.rand(2, 2, 1, *shape, device=device)
    onto_fixed, onto_moving = net.deformations(fixed, moving)
    features = net.backbone(torch.cat([moving, fixed], 1))
    assert torch.equal(onto_fixed.displacement, net.onto_fixed(features))
    assert torch.equal(onto_moving.displacement, net.onto_moving(features))
    assert not torch.equal(onto_fixed.displacement, onto_moving.displacement)
    assert onto_fixed.velocity is None


def test_velocities_have_flows() -> None:
    torch.manual_seed(0)
    net = DualHeadNetwork(2, 1, (2, 3), (3, 2), squarings=5)
    torch.nn.init.normal_(net.onto_fixed.weight)
    for found in net.deformations(*torch.rand(2, 1, 1, 9, 8)):
        assert found.velocity is not None
        assert found.squarings == 5
        torch.testing.assert_close(found.displacement, exponential(found.velocity, 5))


def test_both_heads_begin_at_the_identity() -> None:
    torch.manual_seed(0)
    net = DualHeadNetwork(3, 1, ENCODER, DECODER)
    for found in net.deformations(*torch.rand(2, 1, 1, 16, 16, 16)):
        assert found.displacement.abs().max() < 1e-2
