"""The digest of a detector's code: what changes it, and what does not."""

import shutil
from pathlib import Path

import pytest

from okng.benchmark import code
from okng.benchmark.code import PACKAGE, code_digest, is_older, present_code
from okng.detectors.cards import cards

GAN, DCGAN = "detectors/adversarial/gan.py", "nn/networks/dcgan.py"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for room in ("detectors", "nn", "datasets"):
        shutil.copytree(PACKAGE / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edited(package: Path, file: str, old: str, new: str) -> str:
    """The digest of AnoGAN's code once `old` in a file is `new`."""
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new, 1))
    return code_digest("anogan", package)


def test_every_detector_has_a_digest_and_a_copy_has_the_same(package: Path) -> None:
    digests = {name: code_digest(name, package) for name in cards()}
    assert all(len(digest) == 12 for digest in digests.values())
    assert digests == {name: present_code(name) for name in cards()}
    assert digests["gan"] != digests["anogan"] and code_digest("no_such_detector") == ""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("detectors/adversarial/anogan.py", ".sum((1, 2, 3))", ".mean((1, 2, 3))"),
        (GAN, "betas=(0.5, 0.999)", "betas=(0.4, 0.999)"),
        (DCGAN, "SLOPE = 0.2", "SLOPE = 0.1"),
        ("nn/networks/sizes.py", "def pad_to_grid", "EXTRA = 1\n\n\ndef pad_to_grid"),  # which DCGAN imports
    ],
)  # fmt: skip
def test_what_computes_counts_wherever_it_stands(package: Path, file: str, old: str, new: str) -> None:
    assert edited(package, file, old, new) != present_code("anogan")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (GAN, '"""A GAN\'s discriminator as a detector."""', '"""Another word."""'),
        (GAN, "        check_input(image_size, channels)\n", "        # a remark\n"),
        (DCGAN, "SLOPE = 0.2", "SLOPE = (\n    0.2\n)"),
        (DCGAN, "from itertools import pairwise", "import itertools\nfrom itertools import pairwise"),
        ("detectors/adversarial/anogan.py", "weight lies between 0 and 1", "weight is a share"),
        ("nn/images/ssim.py", "def ", "EXTRA = 1\n\n\ndef "),  # which AnoGAN does not import
        ("detectors/base.py", "class Batch:", "class Batch:\n    more = 1"),
    ],
)
def test_what_is_only_said_or_refused_does_not(package: Path, file: str, old: str, new: str) -> None:
    assert edited(package, file, old, new) == present_code("anogan")


def test_a_module_counts_however_it_is_imported(package: Path) -> None:
    """Imports themselves don't count, what they bring does."""
    start = "from itertools import pairwise"
    digests = [
        edited(package, "nn/images/ssim.py", "def ", "EXTRA = 1\n\n\ndef "),
        edited(package, DCGAN, start, f"import okng.nn.images.ssim as other\n{start}"),
        edited(package, "nn/images/ssim.py", "EXTRA = 1", "EXTRA = 2"),
    ]
    assert digests[0] == present_code("anogan") and len(set(digests)) == 3


def test_moving_a_network_to_another_room_does_not_count(package: Path) -> None:
    shutil.move(package / DCGAN, package / "nn/images/dcgan.py")
    for file in (GAN, "detectors/adversarial/anogan.py"):
        text = (package / file).read_text().replace("okng.nn.networks.dcgan", "okng.nn.images.dcgan")
        (package / file).write_text(text)
    assert code_digest("anogan", package) == present_code("anogan")


def test_corruptions_are_code_of_what_learns_from_them(package: Path) -> None:
    file = package / "datasets/corruptions.py"
    file.write_text(file.read_text() + "\nEXTRA = 1\n")
    assert code_digest("aesc", package) != present_code("aesc")
    assert code_digest("gan", package) == present_code("gan")


def test_a_row_without_a_digest_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_older({"detector": "gan"}) and is_older({"detector": "gan", "code": ""})
    assert not is_older({"detector": "gan", "code": present_code("gan")})
    assert not is_older({"detector": "vgg11_classifier", "code": ""})  # which is no detector, and has no digest
    monkeypatch.setattr(code, "present_code", lambda name: "another")
    assert is_older({"detector": "gan", "code": present_code("gan")})
