"""Trained models that translate, as an evaluation runs them: an image of a pair, made like the other one and judged.

Of a pair the moving image is translated into the modality of the fixed one, so that a pair is told alike whether it is
registered or translated. What comes out lies where the moving image does; so does the truth, brought there by the true
map of the pair where that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from anamorph.data.cohort import Pair
from anamorph.data.image import Image, Mask
from anamorph.data.transform_files import read_transform
from anamorph.errors import InputError
from anamorph.inference.contenders import Registrar, anything, stamp_of
from anamorph.inference.cost import measured
from anamorph.inference.model_domain import known_modality
from anamorph.inference.model_folder import Model
from anamorph.inference.translate import Translated, TranslationError, compare_translation, translate_with
from anamorph.methods.translation import Translation
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Transform


@dataclass(frozen=True, eq=False)
class Truth:
    """What a translation is compared with.

    Args:
        image: of its modality.
        transform: source world -> the image's world; one world if None.
        mask: on the source's grid, of what is also judged by itself.
    """

    image: Image
    transform: Transform | None = None
    mask: Mask | None = None


@dataclass(frozen=True, eq=False)
class JudgedTranslation:
    """A translation beside the truth, and what it cost; None where that is not known."""

    found: Translated
    compared: TranslationError
    seconds: float | None = None
    peak_mib: float | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class ImageTranslator:
    """One way to translate; as ``Registrar``, with a pair, its moving image, and the truth."""

    name: str
    run: Callable[[Pair, Image, Truth], JudgedTranslation]
    stamp: str = ""
    admit: Callable[[Pair], None] = anything


Contender = TypeVar("Contender", Registrar, ImageTranslator)


def translating_model(model: Model, name: str, *, native: bool = True) -> ImageTranslator:
    """A trained model for the moving image of a pair.

    Args:
        model: as it is to be used.
        name: in the tables.
        native: whether it is judged on the image's own grid; if not, on the network's, with the truth brought there.
    """
    method = model.method
    assert isinstance(method, Translation)

    def admit(pair: Pair) -> None:
        source = known_modality(model, pair.moving.modality, name=pair.moving.image.name)
        made = method.modalities[method.target_of(source, pair.moving.image.name)]
        if made.lower() != pair.fixed.modality.lower():
            found = f"{made} out of {pair.moving.modality}"
            raise InputError("E-EVA-018", found, expected=pair.fixed.modality, do="choose pairs of its modalities")

    def run(pair: Pair, source: Image, truth: Truth) -> JudgedTranslation:
        admit(pair)
        with measured(model.device) as cost:
            found = translate_with(model, source, native=native)
        compared = compare_translation(model, found, truth.image, transform=truth.transform, mask=truth.mask)
        return JudgedTranslation(found, compared, cost.seconds, cost.peak_mib, model.device.type)

    return ImageTranslator(name, run, f"{stamp_of(model)}{'' if native else ' on the network grid'}", admit)


def by_fixed_modality(parts: Mapping[str, Contender], name: str) -> Contender:
    """One contender for each fixed modality, under one name.

    Args:
        parts: modality -> contender; "" for all modalities that are not named.
        name: in the tables.
    """

    def run(pair: Pair, *given: Any) -> Any:
        part = parts.get(pair.fixed.modality) or parts.get("")
        if part is None:
            found = f"no training of {name} for the fixed modality {pair.fixed.modality}"
            raise InputError("E-EVA-017", found, expected=" or ".join(parts))
        return part.run(pair, *given)

    stamp = " ".join(f"{modality} {part.stamp}".strip() for modality, part in parts.items())
    return replace(next(iter(parts.values())), name=name, run=run, stamp=stamp, admit=anything)


def true_map(pair: Pair, listed: Sequence[Pair], source: Grid, truth: Grid) -> Transform | None:
    """Moving world -> fixed world, as the files have it; None where they have none.

    Args:
        pair: whose moving image is the source.
        listed: pairs whose true maps may be known, this one or its reverse among them.
        source, truth: grids of the moving and of the fixed image.
    """
    for one in (*listed, pair):
        if one.displacement is not None and (one.fixed.name, one.moving.name) == (pair.moving.name, pair.fixed.name):
            return read_transform(one.displacement, grid=source)
    for one in (pair, *listed):
        if one.displacement is not None and one.name == pair.name:
            return read_transform(one.displacement, grid=truth).inverse()
    return None
