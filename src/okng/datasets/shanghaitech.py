"""ShanghaiTech Campus: frames of surveillance video (Liu, Luo, Lian, Gao, CVPR 2018).

`training/frames/<clip>/` and `testing/frames/<clip>/` hold the frames, `testing/test_frame_mask/<clip>.npy` one number
per test frame, 0 for OK.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.folder import no_images
from okng.errors import OkngError, in_one_line
from okng.inspection.reading.files import find_images, subfolders


def has_shanghaitech_layout(folder: Path) -> bool:
    """Whether `folder` is ShanghaiTech Campus."""
    return (folder / "training").is_dir() and (folder / "testing" / "test_frame_mask").is_dir()


def open_shanghaitech(folder: Path) -> Dataset:
    """Trains on the frames of `training/`, tests on those of `testing/`, each labelled by itself; kinds are clips.

    The training part comes as videos; frames have to be taken out of them first. Raises `OkngError` where that was
    not done, and for labels that are missing, damaged or not as many as the clip's frames.
    """
    train = tuple(Sample(frame, OK, clip.name) for clip in _clips(folder / "training") for frame in find_images(clip))
    if not train:
        raise no_images(folder / "training" / "frames")
    test = []
    for clip in _clips(folder / "testing"):
        frames = find_images(clip)
        labels = _labels(folder / "testing" / "test_frame_mask" / f"{clip.name}.npy", len(frames))
        test += [Sample(frame, NG if odd else OK, clip.name) for frame, odd in zip(frames, labels, strict=True)]
    return Dataset(
        name=folder.resolve().name,
        layout="shanghaitech",
        protocol="The native split: all frames of training/ for training, those of testing/ for testing, labelled "
        "frame by frame; frames are judged one at a time.",
        train=train,
        test=tuple(test),
    )


def _clips(part: Path) -> list[Path]:
    if not (part / "frames").is_dir():
        raise OkngError(
            f"{part} has no frames/; take them out of its videos, such as: ffmpeg -i videos/01_001.avi "
            "frames/01_001/%03d.jpg"
        )
    return subfolders(part / "frames")


def _labels(path: Path, frames: int) -> np.ndarray:
    """Whether each frame of a clip is NG (frames,), bool."""
    if not path.is_file():
        raise OkngError(f"{path} is missing; it says which frames of {path.stem} are NG")
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise OkngError(f"{path} cannot be read ({in_one_line(error)}); get the file again") from error
    if labels.shape != (frames,):
        raise OkngError(f"{path} labels {labels.size} frames but the clip has {frames}; extract it again")
    return np.asarray(labels != 0)
