"""Images, labels and masks from and to files. What a file is, its bytes say; its name counts for nothing.

Everything that was repaired or looks suspicious is a warning with a code, everything that cannot be trusted an error
with one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from anamorph.data.guard import CHUNK, Sniffed, sniff
from anamorph.data.image import Image, Labelmap, Mask, ReadPolicy
from anamorph.data.itk import read_itk
from anamorph.data.metaimage import open_metaimage, write_metaimage
from anamorph.data.mgh import read_mgh
from anamorph.data.nifti import header_of_pair, read_nifti, write_nifti
from anamorph.data.nrrd import open_nrrd, write_nrrd
from anamorph.data.raster import read_raster
from anamorph.data.volume import SAME_MM, Volume
from anamorph.errors import ConfigurationError, InputError, ResourceError, warn
from anamorph.spatial.grid import Grid

REFUSED_MM = 1.0
"""Corner distance between an image and what belongs to it from which they lie in two places."""
EXTENSIONS = {
    "nifti": (".nii", ".nii.gz", ".hdr", ".hdr.gz"),
    "nrrd": (".nrrd", ".nhdr"),
    "metaimage": (".mha", ".mhd"),
    "mgh": (".mgh", ".mgz"),
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "tiff": (".tif", ".tiff"),
}
WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha")
SMALLEST_FIRST = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def read(path: str | Path, policy: ReadPolicy | None = None, modality: str | None = None) -> Image:
    """An image of one channel, as float32.

    Args:
        path: NIfTI, NRRD, MetaImage, MGH, or a greyscale PNG, JPEG or TIFF.
        policy: how to answer what the file leaves open.
        modality: "ct", "t1", ... recorded with the image.

    Raises:
        InputError: the file cannot be trusted as it is; the message says what was found, expected and to do.
        ResourceError: it does not fit into memory.
        IntegrityError: its data file lies outside its folder.
    """
    policy = policy or ReadPolicy()
    return read_volume(path, policy).image(policy, modality)


def read_labels(path: str | Path, policy: ReadPolicy | None = None) -> Labelmap:
    """Integer labels, exactly; floats that hold integers are accepted. Errors as in ``read``."""
    return read_volume(path, policy or ReadPolicy()).labels()


def read_mask(path: str | Path, grid: Grid | None = None, policy: ReadPolicy | None = None) -> Mask:
    """Where values exceed 0.5, brought onto ``grid`` in world space where the file lies on another one.

    Raises:
        InputError: an empty mask, NaN or Inf in it, no overlap with ``grid``; else as in ``read``.
        NumericalError: hardly any voxels.
    """
    return read_volume(path, policy or ReadPolicy()).mask(grid)


def check_same_space(image: Grid, other: Grid, file: str | Path) -> None:
    """Whether ``file``, which lies on ``other``, belongs to an image on ``image`` voxel by voxel.

    Silent up to 1e-3 mm between corners, a warning up to 1 mm.

    Raises:
        InputError: another size, or further away.
    """
    millimetres = image.distance_mm(other)
    if millimetres <= SAME_MM:
        return
    if image.shape != other.shape:
        expected = f"{image.shape} as its image has"
        raise InputError("E-GEO-015", f"size {other.shape}", file=file, expected=expected, do="resample it first")
    found = f"{millimetres:.3g} mm away from its image"
    if millimetres > REFUSED_MM:
        raise InputError("E-GEO-015", found, file=file, expected="the same place", do="resample it first")
    warn("W-GEO-015", found, file=file)


def read_volume(path: str | Path, policy: ReadPolicy) -> Volume:
    """One volume of a file as stored, and where it is; the step below ``read``. Errors as there."""
    path = Path(path)
    _refuse_dicom_folder(path)
    path = header_of_pair(path)
    sniffed = sniff(path)
    match sniffed.kind:
        case "nifti":
            _compare_with_name(path, sniffed)
            return read_nifti(path, sniffed, policy)
        case "nrrd" | "metaimage" if not sniffed.compressed:
            _compare_with_name(path, sniffed)
            return read_itk(open_nrrd(path) if sniffed.kind == "nrrd" else open_metaimage(path), policy)
        case "mgh":
            _compare_with_name(path, sniffed)
            return read_mgh(path, sniffed, policy)
        case "png" | "jpeg" | "tiff" if not sniffed.compressed:
            _compare_with_name(path, sniffed)
            return read_raster(path, policy)
    raise _unread(path, sniffed)


def _refuse_dicom_folder(path: Path) -> None:
    try:
        files = [entry for entry in islice(path.iterdir(), 100) if entry.is_file()] if path.is_dir() else []
        heads = [_first_bytes(file, 132) for file in files[:10]]
    except OSError:
        return
    if any(head[128:] == b"DICM" for head in heads):
        raise _dicom(path)


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _dicom(path: Path) -> InputError:
    return InputError("E-FMT-008", "DICOM is not read yet", file=path, expected="NIfTI", do="convert it with dcm2niix")


def _unread(path: Path, sniffed: Sniffed) -> InputError:
    if sniffed.kind == "dicom":
        return _dicom(path)
    if sniffed.kind == "html":
        found = "a web page, neither gzip nor an image"
        return InputError("E-IO-003", found, file=path, expected="an image", do="download it again")
    found = "HDF5, perhaps a transform" if sniffed.kind == "hdf5" else "bytes of no known image format"
    expected = "NIfTI, NRRD, MetaImage, MGH, PNG, JPEG or TIFF"
    return InputError("E-FMT-009", found, file=path, expected=expected, do="convert it to NIfTI")


def _compare_with_name(path: Path, sniffed: Sniffed) -> None:
    name = path.name.lower()
    if not name.endswith(EXTENSIONS[sniffed.kind]):
        warn("W-FMT-013", f"holds {sniffed.kind}, whatever its name says", file=path)
    elif sniffed.compressed and not name.endswith((".gz", ".mgz")):
        warn("W-NII-005", "gzip, though its name does not end in .gz", file=path)
    elif name.endswith(".gz") and not sniffed.compressed:
        warn("W-NII-004", "not gzip, though its name ends in .gz", file=path)


def write(item: Image | Labelmap | Mask, path: str | Path) -> None:
    """Writes an image as float32, labels and masks as integers, to .nii, .nii.gz, .nrrd or .mha.

    Labels keep the type of their file where it is an integer type that holds them, and get the smallest that does
    otherwise. Nothing but voxels and geometry is stored, and the same item gives the same bytes.

    Raises:
        ConfigurationError: another extension, or a folder that does not exist.
        InputError: several channels, or axes that the format cannot hold.
        ResourceError: the disk is full or refuses; a file that was there is untouched.
    """
    if isinstance(item, Image):
        if len(item.data) != 1:
            raise InputError("E-OUT-005", f"an image of {len(item.data)} channels", file=path, expected="one a file")
        values = item.data[0].cpu().numpy()
    elif isinstance(item, Labelmap):
        values = item.data.cpu().numpy()
        values = values.astype(label_dtype(values, item.dtype))
    else:
        values = item.data.cpu().numpy().astype(np.uint8)
    write_values(values, item.grid, path)


def write_values(values: np.ndarray, grid: Grid, path: str | Path) -> None:
    """Writes an array I J (K) in its own type; the step below ``write``. Errors as there."""
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(WRITTEN):
        raise ConfigurationError("E-OUT-002", "a name of no written format", file=path, expected=", ".join(WRITTEN))
    with atomic_write(path) as part, part.open("wb") as file:
        if name.endswith((".nii", ".nii.gz")):
            write_nifti(values, grid, file, compress=name.endswith(".gz"))
        elif name.endswith(".nrrd"):
            write_nrrd(values, grid, file)
        else:
            write_metaimage(values, grid, file)


def label_dtype(values: np.ndarray, wanted: np.dtype) -> np.dtype:
    """``wanted`` where it is an integer type that holds every value, the smallest such type otherwise."""
    low, high = int(values.min()), int(values.max())
    candidates = [wanted] if wanted.kind in "iu" else []
    for dtype in (*candidates, *map(np.dtype, SMALLEST_FIRST)):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return dtype
    raise InputError("E-LAB-003", f"labels from {low} to {high}", expected="values within int64")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes the place of ``path`` when the block ends without an error.

    Until then a file that is already there stays as it is; after an error nothing is left behind.

    Raises:
        ConfigurationError: the folder does not exist.
        ResourceError: the disk is full, read-only or refuses.
    """
    path = Path(path)
    if not path.parent.is_dir():
        found = f"its folder {path.parent.name!r} does not exist"
        raise ConfigurationError("E-OUT-001", found, file=path, do="make the folder first")
    if path.is_dir():
        raise ConfigurationError("E-OUT-001", "this is a folder", file=path, expected="a file name")
    part = path.parent / f".part-{secrets.token_hex(8)}{''.join(path.suffixes[-2:])[-16:]}"
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        found = os.strerror(error.errno).lower()
        raise ResourceError("E-OUT-003", f"not written: {found}", file=path, do="free or change the disk") from error
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_state(path: Path) -> str:
    """Name, size and time of the last change, which tell a file from what it was before; far quicker than its hash."""
    state = path.stat()
    return f"{path.name} {state.st_size} {state.st_mtime_ns}"


def sha256(path: str | Path) -> str:
    """Hexadecimal digest of a file; two reads that differ mean that it was replaced in between."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
