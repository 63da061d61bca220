"""What the names of files and folders say: OK, NG, a mask, a test. Names are compared as words, in any Unicode form.

`badge_01` is not bad and `label_printer` no label: a short word counts only where nothing but filler stands beside it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from okng.inspection.reading.files import is_image

GOOD = {
    "good", "ok", "io", "gut", "gute", "bon", "bons", "buono", "buoni", "bueno", "buenos", "normal", "годные",
    "良品", "正常", "正常品", "合格", "合格品", "정상", "양품", "합격",
}  # fmt: skip
NOT = {"no", "non", "not", "nicht", "pas", "free", "without", "ohne", "kein", "keine", "sans", "senza", "sin", "без"}
NG_ANYWHERE = {
    "ng", "nok", "nio", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal", "ungood",
    "schlecht", "schlechte", "defekt", "defekte", "fehlerhaft", "ausschuss", "défaut", "défauts", "défectueux", "rebut",
    "rebuts", "difetto", "difetti", "difettoso", "difettosi", "scarto", "scarti", "defecto", "defectos", "defectuoso",
    "defectuosos", "defeito", "defeitos", "брак", "дефект", "дефекты",
    "불량", "불량품", "결함", "비정상", "불합격", "不良", "不良品", "不合格", "異常", "异常", "欠陥", "缺陷",
}  # fmt: skip
NG_ALONE = {
    "bad", "mauvais", "ko", "fail", "failed", "fault", "faults", "faulty", "invalid", "reject", "rejects", "rejected",
    "scrap",
}  # fmt: skip
MASK = {
    "mask", "masks", "label", "labels", "gt", "ground", "truth", "groundtruth", "seg", "segmentation", "segmentations",
    "segmentationclass", "segmentationobject", "annotation", "annotations",
}  # fmt: skip
TEST = {"test", "tests", "testing", "val", "valid", "validation", "eval", "evaluation"}
TRAIN = {"train", "training"}
FILLER = {
    "all", "class", "data", "dataset", "dir", "file", "files", "folder", "image", "images", "img", "imgs", "jpg",
    "json", "mixed", "object", "part", "parts", "photo", "photos", "pic", "pics", "picture", "pictures", "png",
    "private", "public", "sample", "samples", "set",
}  # fmt: skip
DRAWN = {"viz", "visualization", "visualisation"}  # masks drawn over photographs
DEPTH = {"xyz", "depth"}  # what a 3D sensor saw, beside the colour image

_IN_ORDER = re.compile(r"(?<![^\W\d_])(n?)\.?i\.?o\.?(?![^\W\d_])", re.I)  # n.i.O., niO, i.O.: German, (not) in order
_ENDING = r"(?:mask|label|gt|ground[_ ]?truth|truth|seg|segmentation|annotation)s?"
MASK_SOMEWHERE = re.compile(_ENDING, re.I)
MASK_AT_END = re.compile(rf"^(.+?)(?:[\s_.\-]+|(?<=\d)){_ENDING}[_\-]?\d*$", re.I)
MASK_AT_START = re.compile(rf"^{_ENDING}[\s_.\-]+(.+)$", re.I)


@lru_cache(1 << 16)
def words(name: str) -> frozenset[str]:
    """The words of a name in lower case; digits, punctuation and `camelCase` part them."""
    name = _IN_ORDER.sub(r"\1io", unicodedata.normalize("NFC", name))
    spaced = re.sub(r"(?<=[a-z][a-z])(?=[A-Z])", " ", name)
    return frozenset(word.casefold() for word in re.split(r"[\W\d_]+", spaced) if word)


def says_only_ng(name: str) -> bool:
    """Whether a name says nothing else than NG: Anomaly, bad_parts; not defect_detection."""
    return says_ng(name) and words(name) <= NG_ANYWHERE | NG_ALONE | FILLER


def says_good(name: str) -> bool:
    """Whether a folder's name says that its images are OK: good, OK_parts, normal_dir."""
    found = words(name)
    return bool(found & GOOD) and found <= GOOD | FILLER | TRAIN


def says_ng(name: str) -> bool:
    """Whether a name says that it is of NG images: NG, scratch_defects, bad, not_ok; not defect_free."""
    found = words(name)
    if found & NOT:
        return bool(found & GOOD) and found <= NOT - {"free"} | GOOD | FILLER
    return bool(found & NG_ANYWHERE) or (bool(found & NG_ALONE) and found <= NG_ALONE | FILLER | TRAIN | TEST)


def says_masks(name: str) -> bool:
    """Whether a folder's name says that it holds masks: ground_truth, Label, anomaly_masks; not label_printer."""
    found = words(name)
    return (
        bool(found & (MASK | DRAWN)) and found <= MASK | DRAWN | FILLER | TRAIN | TEST | GOOD | NG_ANYWHERE | NG_ALONE
    )


def says_test(name: str) -> bool:
    """Whether a folder's name says that it is for testing: test_public, validation, normal_test_dir."""
    found = words(name)
    return bool(found & TEST) and found <= TEST | FILLER | GOOD


def key(name: str) -> str:
    """A file's name as images and masks are matched by: composed (NFC), without its suffixes (`x.png.png`)."""
    name = unicodedata.normalize("NFC", name)
    while is_image(name):
        name = name.rpartition(".")[0]
    return name


def mask_keys(name: str) -> list[str]:
    """The keys that the image of a mask called `name` can have, if its name says that it is a mask."""
    if not MASK_SOMEWHERE.search(name):  # so it is with most files
        return []
    found = [pattern.match(key(name)) for pattern in (MASK_AT_END, MASK_AT_START)]
    return [key(match[1]) for match in found if match]
