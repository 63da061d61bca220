"""Both languages say the same things, the templates and scripts say nothing else, and a Korean page is Korean."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
from tests.planted.test_measure import images, model
from tests.report.test_report import Page, inspected, make_inspector, page_of

import okng
from okng.errors import OkngError
from okng.inspection.verdict.rules import Rules
from okng.report import Report
from okng.report.curves import write_curves
from okng.report.language import line_of, translator, words
from okng.report.sensitivity import write_sensitivity
from okng.serve.pages.words import words as server

ROOM = files("okng.report")
# What stays as it is: verdicts, names of figures and methods, file names, units, the manifest's values.
NAMES = {
    "AUROC", "AUPRO", "PatchCore", "okng", "report", "Towards", "Total", "Recall", "Industrial", "Anomaly", "Detection",
    "JavaScript", "Wilson", "partial", "parts", "crack", "good", "broken", "Roth", "coreset", "layers", "Coreset",
    "Layers", "oracle", "CVPR", "unlike",
}  # fmt: skip


def figures(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_have_all_keys_with_the_same_figures_and_marks() -> None:
    english, korean = words("en"), words("ko")
    assert english.keys() == korean.keys() and len(english) > 300
    for key, said in english.items():
        assert said and korean[key] and figures(said) == figures(korean[key]), key
        marks = [sorted(re.findall(r"<[^>]*>", text)) for text in (said, korean[key])]
        assert marks[0] == marks[1], key
        assert not re.search("[가-힣]", said), key
        assert re.search("[가-힣]", korean[key]) or korean[key] == said or figures(said), key


def test_every_word_is_used_and_every_used_word_exists() -> None:
    source = Path(str(ROOM)).parent
    read = [
        *(source / "report").rglob("*.html"),
        *(source / "report").rglob("*.js"),
        *(source / "serve").rglob("*.html"),
    ]
    read += [path for room in ("report", "comparing", "cli", "serve") for path in (source / room).rglob("*.py")]
    text = "\n".join(path.read_text("utf-8") for path in read)
    known = words("en")
    rooms = "|".join({key.partition(".")[0] for key in known})
    named = set(re.findall(rf"""(?<![\w.])t\(\s*"((?:{rooms})\.\w+)"(?! ~)""", text))
    named |= {key for pair in re.findall(r't\("([\w.]+)" if [^"]* else "([\w.]+)"', text) for key in pair}
    in_scripts = {f"table.{key}" for key in re.findall(r'\bsay\("(\w+)"', text)}
    in_scripts |= {f"table.{key}" for pair in re.findall(r'say\([^"]*\? "(\w+)" : "(\w+)"', text) for key in pair}
    composed = {*re.findall(rf'"((?:{rooms})\.[a-z_]*)" ~', text), *re.findall(rf'f"((?:{rooms})\.[a-z_]*)\{{', text)}
    composed |= {f"{page}." for page in re.findall(r'line_of\("(\w+)"', text)}
    said = {key for key in known if f'"{key}"' in text}  # in Python, and where two keys are chosen between
    ours = {key for key in named | in_scripts if key not in server("en")}
    assert ours - known.keys() == set()
    assert [start for start in composed if not any(key.startswith(start) for key in known)] == []
    assert {key for key in known.keys() - said - in_scripts if not key.startswith(tuple(composed))} == set()


def left_over(page: Page) -> set[str]:
    """English words on a page, of four letters or more."""
    read = [page.text]
    for _, attributes in page.tags:
        read += [attributes.get(name) or "" for name in ("alt", "title", "aria-label")]
    return set(re.findall(r"[A-Za-z]{4,}", " ".join(read))) - NAMES


@pytest.mark.parametrize("labelled", [True, False])
def test_a_korean_report_is_korean(tmp_path: Path, labelled: bool) -> None:
    inspector = make_inspector()
    report = Report("검사", inspector, total=99, language="ko", model=None)
    pixels = np.full((40, 60, 3), 90, np.uint8)
    for score in (10, 94, 97, 300, 600):
        known = {"label": int(score > 200), "kind": "crack" if score > 200 else "good"} if labelled else {}
        found = inspected(inspector, score)
        if score > 200:  # as an inspector says it of what it judges
            found = replace(found, reasons=(f"score {score} above the threshold 95",))
        report.add(found, image=pixels, **known)
    report.skip("parts/broken.png", "5")
    page = Page(report.write(tmp_path / "report.html", {"image_auroc": 1.0, "aupro": 0.9}).read_text("utf-8"))
    assert left_over(page) == set()
    assert page.tags[0] == ("html", {"lang": "ko"})
    for said in (
        "따로 떼어 둔 OK 이미지 99장",
        "정한 과검출률: 5%",
        "읽는 법",
        "이상 영역 1개",
        "보정",
        "점수 300, 임계값 95 초과",
    ):
        assert said in page.text


@pytest.mark.parametrize("name", ["긁힘", "it's long, and 2 more"])
@pytest.mark.parametrize("verdict", ["NG", "OK"])
@pytest.mark.parametrize("count", [1, 3])
def test_each_reason_that_rules_give_is_said_in_korean(name: str, verdict: str, count: int) -> None:
    inspector = make_inspector()
    (region,) = inspected(inspector, 300).regions
    rules = Rules.from_json({"rules": [{"name": name, "verdict": verdict}]})
    _, _, lines = rules.judge(300, [region] * count, (40, 60), inspector.calibration)
    (line,) = lines
    told = line_of("reason", line, translator("ko"))
    assert (
        told.startswith(f"규칙 {name!r}에 따라 {verdict}: 면적 ") and line_of("reason", line, translator("en")) == line
    )
    assert sorted(re.findall(r"\d+", told)) == sorted(re.findall(r"\d+", line))
    assert line_of("reason", "what nobody says", translator("ko")) == "what nobody says"


def test_an_empty_report_and_one_without_maps_are_korean_too(tmp_path: Path) -> None:
    assert left_over(page_of(Report("검사", make_inspector(), language="ko"), tmp_path)) == set()
    inspector = make_inspector(maps=False)
    report = Report("검사", inspector.with_threshold(2.0), language="ko")
    report.add(inspected(inspector, 5.0), 0)
    assert left_over(page_of(report, tmp_path)) == set()


def test_korean_curves_are_korean(tmp_path: Path) -> None:
    inspector = make_inspector()
    rows = [{"phase": "1", "epoch": epoch, "losses": {"2": 1 / epoch}, "validation": 0.5} for epoch in (1, 2)]
    inspector.manifest = {**inspector.manifest, "history": rows}
    page = Page(write_curves(tmp_path / "curves.html", "손실", inspector, "ko").read_text("utf-8"))
    assert left_over(page) <= {"validation"} and "에폭 1: 1" in page.text


def test_a_korean_page_of_what_would_be_found_is_korean(tmp_path: Path) -> None:
    result = okng.sensitivity(model(), images(8), kinds=["scratch", "spot"], plants=4)
    page = Page(write_sensitivity(tmp_path / "page.html", "검출", model(), result, "ko").read_text("utf-8"))
    assert left_over(page) == set() and "긁힘: 가늘고 조금 휜 선" in page.text


def test_what_is_filled_in_is_escaped(tmp_path: Path) -> None:
    report = Report("<b>x</b>", make_inspector(), total=5, language="ko")
    report.skip("<i>y</i>.png", "<u>z</u>")
    html = report.write(tmp_path / "report.html").read_text("utf-8")
    assert not {"<b>x", "<i>y", "<u>z"} & set(re.findall(r"<[biu]>[xyz]", html)) and "<b>정한 과검출률: 5%.</b>" in html


def test_another_language_is_refused_in_one_line() -> None:
    with pytest.raises(OkngError, match="pages are in en or ko, not 'fr'"):
        Report("x", make_inspector(), language="fr")
