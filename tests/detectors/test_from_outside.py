"""A detector that is not okng's own, handed over as a class or brought by a package, does what a built-in does."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_cli import okng as command
from tests.cli.test_cli import one_line
from tests.contract.conftest import EXAMPLE, pictures

import okng
from okng.detectors import catalogue
from okng.detectors.base import Phase
from okng.detectors.catalogue import create, detector_class, find, name_of
from okng.detectors.feature_matching.patchcore import PatchCore
from okng.errors import OkngError
from okng.inspection.model_file import read_model, write_model

NAME = "example_of_contributing:Mean"
PACKAGE = """
    from example_of_contributing import Mean

    class Lasting(Mean):
        def update_phases(self):
            yield from self.phases()
"""


class Elsewhere(EXAMPLE):  # type: ignore[misc, valid-type]
    """Another class."""


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "ok"
    folder.mkdir()
    for i, image in enumerate(pictures(12, seed=1)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that was handed no class yet."""
    monkeypatch.setattr(catalogue, "_handed", {})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings the detector "lasting"."""
    site = tmp_path / "site"
    about = site / "bright_ideas-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bright-ideas\nVersion: 1.2\n")
    points = {"lasting": "bright_ideas:Lasting", "patchcore": "bright_ideas:Lasting", "gone": "bright_ideas:Gone"}
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (about / "entry_points.txt").write_text(f"[okng.detectors]\n{lines}")
    (site / "bright_ideas.py").write_text(textwrap.dedent(PACKAGE))
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "bright_ideas", raising=False)


def scores(inspector: okng.Inspector) -> np.ndarray:
    return inspector.score_samples(pictures(3, seed=8))


def test_the_lines_that_contributing_shows_run(
    parts: Path, stranger: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    parts.rename(tmp_path / "parts" / "ok")
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (shown,) = re.findall(r"^ {4}inspector = okng\.fit.*?\n\n", page, re.MULTILINE | re.DOTALL)
    exec(compile(textwrap.dedent(shown), "CONTRIBUTING.md", "exec"), {"okng": okng, "Mean": EXAMPLE})
    assert (tmp_path / "parts.okng").is_file()


def test_a_class_that_is_handed_over(parts: Path, tmp_path: Path, stranger: None) -> None:
    fitted = okng.fit(parts, EXAMPLE, epsilon=0.01, holdout=0.3, device="cpu")
    fitted.save(tmp_path / "parts.okng")
    assert fitted.manifest["detector"] == {"name": NAME, "arguments": {"epsilon": 0.01}}
    assert find(NAME).title == "Mean" and find(NAME).idea.startswith("Odd is far from the average")
    for loaded in (okng.load(tmp_path / "parts.okng"), okng.load(tmp_path / "parts.okng", detector=EXAMPLE)):
        np.testing.assert_array_equal(scores(loaded), scores(fitted))
    okng.export(fitted, tmp_path / "parts.onnx")
    np.testing.assert_allclose(scores(okng.load(tmp_path / "parts.onnx")), scores(fitted), rtol=1e-4)
    with pytest.raises(OkngError, match="has no parameter 'epsilom'; did you mean epsilon"):
        okng.fit(parts, EXAMPLE, epsilom=1)
    with pytest.raises(OkngError, match=r"can't be updated"):
        okng.update(tmp_path / "parts.okng", parts)


def test_another_process_hands_the_class_over_again(parts: Path, tmp_path: Path, stranger: None) -> None:
    path = tmp_path / "parts.okng"
    okng.fit(parts, EXAMPLE, holdout=0.3, device="cpu").save(path)
    catalogue._handed.clear()
    with pytest.raises(
        OkngError, match=r"fitted by 'example_of_contributing:Mean'.*okng\.load\(path, detector=CLASS\)"
    ):
        okng.load(path)
    assert "which this okng does not have" in one_line(command("inspect", path, parts))
    with pytest.raises(OkngError, match="was fitted by example_of_contributing:Mean, not by patchcore"):
        okng.load(path, detector=PatchCore)
    with pytest.raises(OkngError, match=r"not by .*:Elsewhere"):
        okng.load(path, detector=Elsewhere)
    assert okng.load(path, detector=EXAMPLE).manifest["detector"]["name"] == NAME


def test_a_file_never_makes_okng_import_what_it_names(
    parts: Path, tmp_path: Path, stranger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    okng.fit(parts, EXAMPLE, holdout=0.3, device="cpu").save(tmp_path / "parts.okng")
    (tmp_path / "somewhere.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    manifest, arrays = read_model(tmp_path / "parts.okng")
    for name in ("somewhere:Mean", "somewhere", "os:system", ""):
        manifest["detector"]["name"] = name
        write_model(tmp_path / "made.okng", manifest, arrays)
        with pytest.raises(OkngError, match="which this okng does not have"):
            okng.load(tmp_path / "made.okng")
    assert "somewhere" not in sys.modules


def test_a_detector_that_a_package_brings(parts: Path, tmp_path: Path, package: None, stranger: None) -> None:
    model = tmp_path / "parts.okng"
    assert "Brought by the package bright-ideas 1.2" in command("list").stdout
    assert json.loads(command("list", "Lasting", "--json").stdout)["parameters"] == {"epsilon": 0.001}
    done = command("train", parts, "-d", "Lasting", "-p", "epsilon=0.01", "-o", model, "--device", "cpu", "--json")
    assert json.loads(done.stdout)["detector"] == {"name": "lasting", "arguments": {"epsilon": 0.01}}, done.stderr
    Image.fromarray(pictures(1, seed=2)[0]).save(tmp_path / "false_alarm.png")
    assert (
        command("train", "--update", model, tmp_path / "false_alarm.png", "-o", tmp_path / "new.okng").returncode == 0
    )
    assert command("export", tmp_path / "new.okng").returncode == 0
    found = [
        json.loads(command("inspect", tmp_path / f"new.{kind}", parts, "--json").stdout) for kind in ("okng", "onnx")
    ]
    assert [i["verdict"] for i in found[0]["images"]] == [i["verdict"] for i in found[1]["images"]]
    assert command("inspect", model, parts, "--report", tmp_path / "report").returncode == 0
    assert name_of(detector_class("lasting")) == "lasting"


def test_a_package_can_neither_replace_a_built_in_nor_break_the_list(package: None) -> None:
    assert detector_class("patchcore") is PatchCore
    assert "gone" in command("list").stdout
    assert "gone can't be imported from bright_ideas:Gone" in one_line(command("train", ".", "-d", "gone"))


def test_a_built_in_class_goes_by_its_name_and_any_spelling_will_do() -> None:
    assert name_of(PatchCore) == name_of("PatchCore") == name_of("patch-core") == "patchcore"
    assert name_of("OE-SDN") == "oe_sdn" and name_of("f-AnoGAN") == "f_anogan" and name_of("CAVGA-u") == "cavga_u"
    with pytest.raises(OkngError, match="there is no detector 'PachCore'; did you mean patchcore"):
        name_of("PachCore")
    with pytest.raises(OkngError, match="int is no detector; make it a subclass of"):
        name_of(int)  # type: ignore[arg-type]
    for given, kind in ((create("knn"), "NearestNeighbours"), (None, "NoneType"), (np.zeros(3), "ndarray")):
        with pytest.raises(OkngError, match=f"or a class, not a {kind}; give its arguments by name"):
            okng.fit("parts/ok", given)  # type: ignore[arg-type]
    with pytest.raises(OkngError, match=r"names somewhere:Mean as a detector, .* okng\.detectors; in Python okng\.fit"):
        create("somewhere:Mean")  # 40 names of methods were no help


def test_one_number_and_numpys_scalars_are_what_they_look_like() -> None:
    made = create("patchcore", weights="none", strides=16, coreset=np.float32(0.5), neighbours=np.int64(3))
    assert made.arguments["strides"] == (16,) and made.backbone.strides == (16,)  # type: ignore[union-attr]
    assert json.loads(json.dumps(made.arguments))["neighbours"] == 3 and made.arguments["coreset"] == 0.5
    with pytest.raises(OkngError, match="strides takes a number or several, such as 8,16, not 'fine'"):
        create("patchcore", strides="fine")


class Broken(EXAMPLE):  # type: ignore[misc, valid-type]
    """It fails when it learns."""

    def phases(self) -> Iterator[Phase]:
        raise OkngError("not today")


def test_what_a_class_says_when_it_learns_reaches_the_person(parts: Path, stranger: None) -> None:
    with pytest.raises(OkngError, match="not today"):
        okng.fit(parts, Broken, device="cpu")
