"""What the answers of a discriminator cost, patch by patch: to itself, and to the generator that it judges.

    least_squares     mean (D - t)^2,              t = 1 of real images, 0 of fake ones
    vanilla           mean log(1 + exp(-s D)),     s = 1 of real images, -1 of fake ones: D is the logit of being real

A generator pays what its fakes cost as real ones. Of a discriminator that cannot tell them apart, and answers alike
everywhere, least_squares costs 0.25 on either kind, and vanilla log 2.

Sources: X. Mao et al. (2017), Least squares generative adversarial networks, doi:10.1109/ICCV.2017.304; I. Goodfellow
et al. (2014), Generative adversarial nets, arXiv:1406.2661, with the generator's loss that does not saturate.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from anamorph.losses.masks import Loss

Answers = Float[Tensor, "batch channels *patches"]


def least_squares(answers: Answers, real: bool) -> Loss:
    """Mean squared distance from 1 (real) or 0."""
    return (answers.float() - float(real)).square().mean()


def vanilla(answers: Answers, real: bool) -> Loss:
    """Mean binary cross-entropy of logits."""
    return functional.softplus(-answers.float() if real else answers.float()).mean()


ADVERSARIAL: dict[str, Callable[[Answers, bool], Loss]] = {"least_squares": least_squares, "vanilla": vanilla}
"""Name in settings -> loss of answers and of what they should be."""
