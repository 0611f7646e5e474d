"""Anamorph aligns medical images across modalities.

The public names below are imported when they are first used, so that ``import anamorph`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anamorph.data.cohort import Cohort as Cohort
    from anamorph.data.cohort_files import read_cohort as read_cohort
    from anamorph.data.cohort_files import write_cohort as write_cohort
    from anamorph.data.files import read as read
    from anamorph.data.files import read_labels as read_labels
    from anamorph.data.files import read_mask as read_mask
    from anamorph.data.files import write as write
    from anamorph.data.image import Image as Image
    from anamorph.data.image import Labelmap as Labelmap
    from anamorph.data.image import Landmarks as Landmarks
    from anamorph.data.image import Mask as Mask
    from anamorph.data.image import ReadPolicy as ReadPolicy
    from anamorph.data.landmark_files import read_landmarks as read_landmarks
    from anamorph.data.landmark_files import write_landmarks as write_landmarks
    from anamorph.data.phantoms.kinds import synthesise as synthesise
    from anamorph.data.plan import Plan as Plan
    from anamorph.data.prepared import PreparedCohort as PreparedCohort
    from anamorph.data.transform_files import read_transform as read_transform
    from anamorph.data.transform_files import write_transform as write_transform
    from anamorph.errors import AnamorphError as AnamorphError
    from anamorph.errors import AnamorphWarning as AnamorphWarning
    from anamorph.errors import ConfigurationError as ConfigurationError
    from anamorph.errors import InputError as InputError
    from anamorph.errors import IntegrityError as IntegrityError
    from anamorph.errors import NumericalError as NumericalError
    from anamorph.errors import ResourceError as ResourceError
    from anamorph.inference.model_folder import Model as Model
    from anamorph.inference.model_folder import read_model as read_model
    from anamorph.inference.register import Registration as Registration
    from anamorph.inference.register import register as register
    from anamorph.inference.register_model import register_with as register_with
    from anamorph.inference.segment import Segmentation as Segmentation
    from anamorph.inference.segment import segment_with as segment_with
    from anamorph.inference.warp import warp as warp
    from anamorph.pairwise.settings import PairwiseSettings as PairwiseSettings
    from anamorph.spatial.grid import Grid as Grid
    from anamorph.spatial.transform import Affine as Affine
    from anamorph.spatial.transform import Chain as Chain
    from anamorph.spatial.transform import Field as Field
    from anamorph.spatial.transform import Transform as Transform
    from anamorph.spatial.transform import Velocity as Velocity
    from anamorph.spatial.transform import resample as resample
    from anamorph.training.configuration import configure as configure
    from anamorph.training.loop import train as train
    from anamorph.training.prepare import prepare as prepare

__version__ = version("anamorph")

_MODULE_OF = {
    "Affine": "anamorph.spatial.transform",
    "AnamorphError": "anamorph.errors",
    "AnamorphWarning": "anamorph.errors",
    "Chain": "anamorph.spatial.transform",
    "Cohort": "anamorph.data.cohort",
    "ConfigurationError": "anamorph.errors",
    "Field": "anamorph.spatial.transform",
    "Grid": "anamorph.spatial.grid",
    "Image": "anamorph.data.image",
    "InputError": "anamorph.errors",
    "IntegrityError": "anamorph.errors",
    "Labelmap": "anamorph.data.image",
    "Landmarks": "anamorph.data.image",
    "Mask": "anamorph.data.image",
    "Model": "anamorph.inference.model_folder",
    "NumericalError": "anamorph.errors",
    "PairwiseSettings": "anamorph.pairwise.settings",
    "Plan": "anamorph.data.plan",
    "PreparedCohort": "anamorph.data.prepared",
    "ReadPolicy": "anamorph.data.image",
    "Registration": "anamorph.inference.register",
    "ResourceError": "anamorph.errors",
    "Segmentation": "anamorph.inference.segment",
    "Transform": "anamorph.spatial.transform",
    "Velocity": "anamorph.spatial.transform",
    "configure": "anamorph.training.configuration",
    "prepare": "anamorph.training.prepare",
    "read": "anamorph.data.files",
    "read_cohort": "anamorph.data.cohort_files",
    "read_labels": "anamorph.data.files",
    "read_landmarks": "anamorph.data.landmark_files",
    "read_mask": "anamorph.data.files",
    "read_model": "anamorph.inference.model_folder",
    "read_transform": "anamorph.data.transform_files",
    "register": "anamorph.inference.register",
    "register_with": "anamorph.inference.register_model",
    "resample": "anamorph.spatial.transform",
    "segment_with": "anamorph.inference.segment",
    "synthesise": "anamorph.data.phantoms.kinds",
    "train": "anamorph.training.loop",
    "warp": "anamorph.inference.warp",
    "write": "anamorph.data.files",
    "write_cohort": "anamorph.data.cohort_files",
    "write_landmarks": "anamorph.data.landmark_files",
    "write_transform": "anamorph.data.transform_files",
}

__all__ = ["__version__", *_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a type checker that saw __getattr__ would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return list(__all__)
