"""One registration by one peer, inside the peer's own virtual environment; nothing of Anamorph is imported.

    PEERS/elastix/bin/python script.py elastix --fixed F --moving M --field OUT.npy --report OUT.json --threads 2

Files are without shear: NIfTI in 3-D, MetaImage in 2-D. The map is written as I J (K) d, LPS mm, on the fixed grid.
``--initial`` is an affine map to begin with, (d+1) x (d+1), LPS mm, in place of a peer's own; the map contains it.
``seconds_registration`` runs from the call to the result, without imports; greedy also reads and writes its files
within it, and convexAdam's includes greedy's affine.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("antspyx", "itk", "itk-elastix", "picsl-greedy", "convexAdam", "torch", "numpy", "scipy", "nibabel")
HERE = Path(__file__).parent
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Settings = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two files, where to put intermediate ones, how many threads to take, perhaps the file of a map to begin with."""

    fixed: str
    moving: str
    scratch: str
    threads: int
    initial: str | None = None


Peer = Callable[[Pair], tuple[np.ndarray, float, Settings]]
"""Returns the whole map's displacement on the fixed grid, I J (K) d in LPS mm, seconds, and settings."""


SEED = 1
"""Of what ANTs draws; with one thread its maps are then the same every time."""

ELASTIX_THREADS = 1
"""itk-elastix 0.25 ended in a segmentation fault with two threads, on every case tried; its seconds are of one."""


def ants(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    """SyN with ANTsPy's defaults: an affine by mutual information first."""
    import ants  # pyright: ignore[reportMissingImports]
    from ants.config import set_ants_deterministic  # pyright: ignore[reportMissingImports]

    fixed, moving = ants.image_read(pair.fixed), ants.image_read(pair.moving)
    settings = {"type_of_transform": "SyN"}
    set_ants_deterministic(on=False, seed_value=SEED)  # registration() takes a random_seed, and ignores it
    begin = time.perf_counter()
    found = ants.registration(fixed, moving, outprefix=f"{pair.scratch}/ants", **settings)
    seconds = time.perf_counter() - begin
    whole = ants.apply_transforms(fixed, moving, found["fwdtransforms"], compose=f"{pair.scratch}/whole")
    return ants.image_read(whole).numpy(), seconds, settings | {"random_seed": SEED}


def elastix(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    """Affine, then B-spline, by mutual information on three levels: ``elastix_*.txt`` beside this file.

    With a map to begin with, here and in ``elastix_default``, the B-spline alone.
    """
    return _elastix(pair, [HERE / "elastix_affine.txt", HERE / "elastix_bspline.txt"])


def elastix_affine(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    """The affine of ``elastix`` alone."""
    return _elastix(pair, [HERE / "elastix_affine.txt"])


def elastix_default(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    """Affine, then B-spline, as elastix itself would set them."""
    return _elastix(pair, ["affine", "bspline"])


def _elastix(pair: Pair, maps: list[Path] | list[str]) -> tuple[np.ndarray, float, Settings]:
    import itk  # pyright: ignore[reportMissingImports]

    begin_with = {}
    if pair.initial is not None:
        maps = maps[1:]
        begin_with["initial_transform_parameter_file_name"] = _elastix_affine_file(pair)
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(ELASTIX_THREADS)
    fixed, moving = itk.imread(pair.fixed, itk.F), itk.imread(pair.moving, itk.F)
    settings = {"threads": ELASTIX_THREADS, "parameters": [Path(one).name for one in maps]}
    parameters = itk.ParameterObject.New()
    for one in maps:
        if isinstance(one, Path):
            parameters.AddParameterFile(str(one))
        else:
            parameters.AddParameterMap(parameters.GetDefaultParameterMap(one, 4))
    begin = time.perf_counter()
    _, found = itk.elastix_registration_method(
        fixed, moving, parameter_object=parameters, log_to_console=False, number_of_threads=ELASTIX_THREADS,
        **begin_with,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    field = itk.array_from_image(itk.transformix_deformation_field(moving, found, output_directory=pair.scratch))
    ndim = field.ndim - 1
    return field.transpose(*reversed(range(ndim)), ndim), seconds, settings


def _elastix_affine_file(pair: Pair) -> str:
    """The map to begin with, as elastix has transforms: y = A x + t about the centre 0."""
    matrix = np.load(str(pair.initial))
    ndim = len(matrix) - 1
    numbers = [*matrix[:-1, :-1].ravel(), *matrix[:-1, -1]]
    lines = {
        "Transform": '"AffineTransform"',
        "NumberOfParameters": str(len(numbers)),
        "TransformParameters": " ".join(f"{number:.17g}" for number in numbers),
        "CenterOfRotationPoint": " ".join(["0"] * ndim),
        "InitialTransformParameterFileName": '"NoInitialTransform"',
        "HowToCombineTransforms": '"Compose"',
        "FixedImageDimension": str(ndim),
        "MovingImageDimension": str(ndim),
    }
    path = Path(pair.scratch) / "initial.txt"
    path.write_text("".join(f"({name} {value})\n" for name, value in lines.items()))
    return str(path)


def _greedy_affine(tool: Any, pair: Pair) -> str:
    found = f"{pair.scratch}/affine.mat"
    options = "-a -dof 12 -m NMI -ia-image-centers -n 100x50x10"
    tool.execute(f"-d 3 -threads {pair.threads} {options} -i {pair.fixed} {pair.moving} -o {found} -V 0")
    return found


def greedy(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    """Affine, then greedy diffeomorphic, both by normalised mutual information; 3-D alone."""
    from picsl_greedy import Greedy3D  # pyright: ignore[reportMissingImports]

    tool = Greedy3D()
    warp, warped, whole = (f"{pair.scratch}/{name}.nii.gz" for name in ("warp", "warped", "whole"))
    base = f"-d 3 -threads {pair.threads} -V 0"
    begin = time.perf_counter()
    affine = _greedy_affine(tool, pair)
    tool.execute(f"{base} -m NMI -n 100x100x50 -i {pair.fixed} {pair.moving} -it {affine} -o {warp}")
    seconds = time.perf_counter() - begin
    tool.execute(f"{base} -rf {pair.fixed} -rm {pair.moving} {warped} -rc {whole} -r {warp} {affine}")
    settings = {"affine": "NMI, 12 parameters, image centres, 100x50x10", "deformable": "NMI, 100x100x50"}
    return np.squeeze(np.asarray(_nifti(whole).dataobj)), seconds, settings


def convexadam(pair: Pair) -> tuple[np.ndarray, float, Settings]:
    """ConvexAdam by MIND-SSC after greedy's affine; 3-D alone."""
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt  # pyright: ignore[reportMissingImports]
    from picsl_greedy import Greedy3D  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(pair.threads)
    tool, warped = Greedy3D(), f"{pair.scratch}/warped.nii.gz"
    begin = time.perf_counter()
    affine = _greedy_affine(tool, pair)
    tool.execute(f"-d 3 -threads {pair.threads} -V 0 -rf {pair.fixed} -rm {pair.moving} {warped} -r {affine}")
    fixed, moving = (torch.from_numpy(_nifti(path).get_fdata(dtype=np.float32)) for path in (pair.fixed, warped))
    voxels = convex_adam_pt(fixed, moving, device=torch.device("cpu"), dtype=torch.float32)
    seconds = time.perf_counter() - begin
    to_world = LPS @ np.asarray(_nifti(pair.fixed).affine)
    linear = LPS @ np.loadtxt(affine) @ LPS  # greedy's matrices are RAS
    index = np.moveaxis(np.indices(fixed.shape, dtype=np.float64), 0, -1)
    start = index @ to_world[:3, :3].T + to_world[:3, 3]
    moved = start + voxels @ to_world[:3, :3].T
    settings = {"affine": "greedy's, as in greedy", "deformable": "convex_adam_pt, MIND-SSC, defaults"}
    return moved @ linear[:3, :3].T + linear[:3, 3] - start, seconds, settings


PEERS: dict[str, Peer] = {
    peer.__name__: peer for peer in (ants, elastix, elastix_affine, elastix_default, greedy, convexadam)
}


def _nifti(path: str) -> Any:
    import nibabel as nib

    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise TypeError(f"{Path(path).name} is no NIfTI file")
    return image


def _peak_mib() -> int:
    """Largest memory this process has held, MiB; not by ``getrusage``, whose record outlives exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 1024)
    raise RuntimeError("/proc/self/status has no VmHWM")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Register as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=list(PEERS))
    for name in ("--fixed", "--moving", "--field", "--report"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--initial", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        initial = None if arguments.initial is None else str(arguments.initial)
        pair = Pair(str(arguments.fixed), str(arguments.moving), scratch, arguments.threads, initial)
        field, seconds, settings = PEERS[arguments.peer](pair)
    peak = _peak_mib()
    np.save(arguments.field, np.ascontiguousarray(field, dtype=np.float32))
    report = {
        "seconds_registration": round(seconds, 2),
        "peak_mib": peak,
        "settings": settings,
        "versions": _versions(),
    }
    arguments.report.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
