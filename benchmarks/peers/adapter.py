"""One registration by one peer with its own defaults, inside the peers' virtual environment.

    PEERS/bin/python -m benchmarks.peers.adapter ants_syn --fixed F --moving M --field OUT.nii.gz --report OUT.json

Run from the root of the repository. 3-D NIfTI without shear. ``seconds_registration`` runs from the call to the
result, without imports; greedy also reads and writes its files within it, and convexAdam's includes greedy's affine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.provenance import peak_mib, versions

PACKAGES = ("antspyx", "itk", "itk-elastix", "picsl-greedy", "convexAdam", "torch", "numpy", "scipy", "nibabel")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Settings = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two files, where to put intermediate ones, and how many threads to take."""

    fixed: str
    moving: str
    scratch: str
    threads: int


Peer = Callable[[Pair], tuple[np.ndarray, float, Settings]]
"""Returns the whole map's displacement on the fixed grid, I J K 3 in LPS mm, seconds, and settings."""


ELASTIX_THREADS = 1
"""itk-elastix 0.25 ended in a segmentation fault with two threads, on every case tried; its seconds are of one."""


def ants_syn(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    import ants  # pyright: ignore[reportMissingImports]

    fixed, moving = ants.image_read(pair.fixed), ants.image_read(pair.moving)
    settings = {"type_of_transform": "SyN", "random_seed": 1}
    begin = time.perf_counter()
    found = ants.registration(fixed, moving, outprefix=f"{pair.scratch}/ants", **settings)
    seconds = time.perf_counter() - begin
    whole = ants.apply_transforms(fixed, moving, found["fwdtransforms"], compose=f"{pair.scratch}/whole")
    return ants.image_read(whole).numpy(), seconds, settings


def elastix(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    import itk  # pyright: ignore[reportMissingImports]

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(ELASTIX_THREADS)
    fixed, moving = itk.imread(pair.fixed, itk.F), itk.imread(pair.moving, itk.F)
    settings = {"parameter_maps": ["affine", "bspline"], "resolutions": 4, "threads": ELASTIX_THREADS}
    maps = itk.ParameterObject.New()
    for kind in settings["parameter_maps"]:
        maps.AddParameterMap(maps.GetDefaultParameterMap(kind, settings["resolutions"]))
    begin = time.perf_counter()
    _, found = itk.elastix_registration_method(
        fixed, moving, parameter_object=maps, log_to_console=False, number_of_threads=ELASTIX_THREADS
    )
    seconds = time.perf_counter() - begin
    field = itk.array_from_image(itk.transformix_deformation_field(moving, found))
    return field.transpose(2, 1, 0, 3), seconds, settings


def _greedy_affine(greedy: Any, pair: Pair) -> str:
    found = f"{pair.scratch}/affine.mat"
    options = "-a -dof 12 -m NMI -ia-image-centers -n 100x50x10"
    greedy.execute(f"-d 3 -threads {pair.threads} {options} -i {pair.fixed} {pair.moving} -o {found} -V 0")
    return found


def greedy_nmi(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    from picsl_greedy import Greedy3D  # pyright: ignore[reportMissingImports]

    greedy = Greedy3D()
    warp, warped, whole = (f"{pair.scratch}/{name}.nii.gz" for name in ("warp", "warped", "whole"))
    base = f"-d 3 -threads {pair.threads} -V 0"
    begin = time.perf_counter()
    affine = _greedy_affine(greedy, pair)
    greedy.execute(f"{base} -m NMI -n 100x100x50 -i {pair.fixed} {pair.moving} -it {affine} -o {warp}")
    seconds = time.perf_counter() - begin
    greedy.execute(f"{base} -rf {pair.fixed} -rm {pair.moving} {warped} -rc {whole} -r {warp} {affine}")
    settings = {"affine": "NMI, 12 parameters, image centres, 100x50x10", "deformable": "NMI, 100x100x50"}
    return np.squeeze(np.asarray(_nifti(whole).dataobj)), seconds, settings


def convexadam(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt  # pyright: ignore[reportMissingImports]
    from picsl_greedy import Greedy3D  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(pair.threads)
    greedy, warped = Greedy3D(), f"{pair.scratch}/warped.nii.gz"
    begin = time.perf_counter()
    affine = _greedy_affine(greedy, pair)
    greedy.execute(f"-d 3 -threads {pair.threads} -V 0 -rf {pair.fixed} -rm {pair.moving} {warped} -r {affine}")
    fixed, moving = (torch.from_numpy(_nifti(path).get_fdata(dtype=np.float32)) for path in (pair.fixed, warped))
    voxels = convex_adam_pt(fixed, moving, device=torch.device("cpu"), dtype=torch.float32)
    seconds = time.perf_counter() - begin
    to_world = LPS @ np.asarray(_nifti(pair.fixed).affine)
    linear = LPS @ np.loadtxt(affine) @ LPS  # greedy's matrices are RAS
    index = np.moveaxis(np.indices(fixed.shape, dtype=np.float64), 0, -1)
    start = index @ to_world[:3, :3].T + to_world[:3, 3]
    moved = start + voxels @ to_world[:3, :3].T
    settings = {"affine": "greedy's, as in greedy_nmi", "deformable": "convex_adam_pt, MIND-SSC, defaults"}
    return moved @ linear[:3, :3].T + linear[:3, 3] - start, seconds, settings


PEERS: dict[str, Peer] = {peer.__name__: peer for peer in (ants_syn, elastix, greedy_nmi, convexadam)}


def _nifti(path: str) -> nib.Nifti1Image:
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise TypeError(f"{Path(path).name} is no NIfTI file")
    return image


def _write_field(field: np.ndarray, like: str, path: Path) -> None:
    """As ITK writes a displacement: I J K 1 3, intent vector, LPS mm."""
    fixed = _nifti(like)
    if field.shape != (*fixed.shape, 3):
        raise ValueError(f"a map of shape {field.shape} for a fixed image of {fixed.shape}")
    image = nib.Nifti1Image(field[:, :, :, None].astype(np.float32), fixed.affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    image.set_qform(fixed.affine, 1)
    image.set_sform(fixed.affine, 1)
    nib.save(image, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=list(PEERS))
    for name in ("--fixed", "--moving", "--field", "--report"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pair = Pair(str(arguments.fixed), str(arguments.moving), scratch, arguments.threads)
        field, seconds, settings = PEERS[arguments.peer](pair)
    peak = peak_mib()
    _write_field(field, pair.fixed, arguments.field)
    report = {
        "seconds_registration": round(seconds, 2),
        "peak_mib": peak,
        "settings": settings,
        "versions": versions(PACKAGES),
    }
    arguments.report.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
