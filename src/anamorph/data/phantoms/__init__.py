"""Made-up patients whose true alignment, labels and landmarks are known.

The public names are imported when they are first used, so that the options can be shown without what makes images.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anamorph.data.phantoms.abdominal_scans import abdomen as abdomen
    from anamorph.data.phantoms.case import Phantom as Phantom
    from anamorph.data.phantoms.case import PhantomCase as PhantomCase
    from anamorph.data.phantoms.case import PhantomScan as PhantomScan
    from anamorph.data.phantoms.deformation import random_diffeomorphism as random_diffeomorphism
    from anamorph.data.phantoms.kinds import phantom as phantom
    from anamorph.data.phantoms.kinds import synthesise as synthesise
    from anamorph.data.phantoms.pair import PhantomPair as PhantomPair

_MODULE_OF = {
    "Phantom": "case",
    "PhantomCase": "case",
    "PhantomPair": "pair",
    "PhantomScan": "case",
    "abdomen": "abdominal_scans",
    "phantom": "kinds",
    "random_diffeomorphism": "deformation",
    "synthesise": "kinds",
}

__all__ = [*_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a type checker that saw __getattr__ would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
