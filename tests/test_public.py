"""The public face: what `okng.` offers, quickly, readably, and with one line where an extra is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import okng
from okng.benchmark.evaluation import metric_lines
from okng.datasets import open_dataset
from okng.inspection.verdict.result import Inspection
from tests.cli.test_cli import WITHOUT_TRAIN
from tests.contract.conftest import EXAMPLE, pictures


@pytest.fixture(scope="module")
def inspector() -> okng.Inspector:
    return okng.fit(pictures(24, seed=1), EXAMPLE, holdout=0.4, false_alarm_rate=0.1, device="cpu")


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_all_names_are_there_and_listed() -> None:
    assert set(okng.__all__) <= set(dir(okng)) and {"fit", "evaluate", "export", "Report"} <= set(okng.__all__)
    for name in okng.__all__:
        assert getattr(okng, name).__doc__, name
    assert (Path(okng.__file__).parent / "py.typed").exists()


def test_importing_it_imports_nothing_heavy() -> None:
    done = run("import okng, sys; dir(okng); sys.exit(bool({'numpy', 'torch', 'PIL'} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["fit", "update", "export", "compare", "evaluate", "ImageOutlierDetector"])
def test_on_the_line_the_missing_extra_is_said_in_one_line(name: str) -> None:
    program = WITHOUT_TRAIN.replace("from okng.cli import main\nmain()", "") + (
        "sys.modules['sklearn'] = None\n" if name == "evaluate" else ""
    )
    call = "okng.evaluate('a.okng', '.')" if name == "evaluate" else f"okng.{name}"
    done = run(f"{program}\nimport okng\nokng.Inspector\ntry:\n    {call}\nexcept okng.OkngError as e:\n    print(e)")
    if name == "evaluate":
        assert "Error" not in done.stdout
    assert done.stdout.endswith("is not installed; in okng's clone run: pip install '.[train]'\n"), done.stderr


def test_reprs_can_be_read(inspector: okng.Inspector) -> None:
    assert repr(inspector).startswith("<Inspector: example_of_contributing:Mean on Torch, 64x64 RGB, threshold ")
    assert "at most 10% false alarms" in repr(inspector)
    found = next(iter(inspector.inspect(pictures(1, seed=9, defect=True))))
    assert repr(found).startswith("<Inspection: NG, score ") and repr(found).endswith("image 0 (64x64)>")
    assert "array" not in repr(found) and len(repr(found)) < 120
    plain = Inspection(3, "parts/a.png", 1.23456, 0.0417, "OK", (480, 640), None, (), {})
    assert repr(plain) == "<Inspection: OK, score 1.235, p 0.0417, no map, parts/a.png (480x640)>"


def test_progress_is_shown_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(4, seed=1)
    okng.fit(images, EXAMPLE, device="cpu")
    assert capsys.readouterr().err == ""
    okng.fit(images, EXAMPLE, device="cpu", progress=True)
    told = capsys.readouterr().err
    assert "cross-fitting: fold 1 of 4\n" in told  # the time left is told once a fold has been timed
    assert "cross-fitting: fold 4 of 4, about 0 s left" in told


def test_evaluate_takes_files_and_folders_and_fills_a_report(inspector: okng.Inspector, tmp_path: Path) -> None:
    from PIL import Image

    for folder, defect, seed in (("train/good", False, 1), ("test/good", False, 2), ("test/cut", True, 3)):
        (tmp_path / "parts" / folder).mkdir(parents=True)
        for i, image in enumerate(pictures(3, seed, defect)):
            Image.fromarray(image).save(tmp_path / "parts" / folder / f"{i}.png")
    inspector.save(tmp_path / "parts.okng")
    page = okng.Report("Parts", inspector)
    figures = okng.evaluate(inspector, tmp_path / "parts", report=page)
    assert figures["image_auroc"] == 1.0 and (figures["n_ok"], figures["n_ng"]) == (3, 3)
    written = page.write(tmp_path / "report.html", figures)
    assert written.stat().st_size > 10_000 and "<dt>Image AUROC</dt><dd>1.0000</dd>" in written.read_text("utf-8")
    assert "<dt>NG caught</dt>" in written.read_text("utf-8") and "_rate</dt>" not in written.read_text("utf-8")
    again = okng.evaluate(tmp_path / "parts.okng", tmp_path / "parts")
    opened = open_dataset(tmp_path / "parts")
    assert okng.evaluate(inspector, opened, seed=1)["caught"] == again["caught"]
    for given in ({"normal": "good"}, {"protocol": "80/20"}, {"abnormal": "cut"}, {"contamination": 0.1}):
        with pytest.raises(okng.OkngError, match=f"parts is divided already; leave out {next(iter(given))}, or give"):
            okng.evaluate(inspector, opened, **given)  # type: ignore[arg-type]
    with pytest.raises(okng.OkngError, match="parts is divided already; leave out normal"):
        okng.compare([tmp_path / "parts", opened], EXAMPLE, normal="good", output=tmp_path / "out")
    assert again["caught"] == figures["caught"]
    for share, number in (("measured_false_alarm", "n_ok"), ("caught", "n_ng")):  # three images tell little
        low, high = figures[f"{share}_interval"]
        rate = figures["caught" if share == "caught" else f"{share}_rate"]
        assert low <= rate <= high and high - low > 0.5 and figures[number] == 3
    printed = "\n".join(metric_lines(figures))
    assert "of NG images, 95 % interval 43.9% to 100.0%" in printed and printed.count("95 % interval") == 2


def test_what_is_written_lies_at_home_where_a_tilde_says_so(
    inspector: okng.Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    inspector.save("~/parts.okng")
    assert okng.Report("Parts", inspector).write(Path("~/report.html")) == tmp_path / "report.html"
    assert okng.export("~/parts.okng", "~/parts.onnx").path == tmp_path / "parts.onnx"
    for name in ("parts.okng", "parts.onnx", "report.csv", "report.html"):
        assert (tmp_path / name).is_file()


def test_export_takes_an_inspector_or_its_file(inspector: okng.Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "parts.okng")
    for i, model in enumerate((inspector, tmp_path / "parts.okng")):
        done = okng.export(model, tmp_path / f"{i}.onnx")
        assert done.path.exists() and done.parity.score < 1e-4 and done.drift is None
        loaded = okng.load(done.path)
        images = pictures(2, seed=7)
        np.testing.assert_allclose(loaded.score_samples(images), inspector.score_samples(images), rtol=1e-4)
    with pytest.raises(okng.OkngError, match="runs on the CPU"):
        okng.load(tmp_path / "0.onnx", device="cuda")
    for mistake, message in [
        ({"path": "a.okng"}, "ends in .onnx"),
        ({"path": "a.onnx", "precision": "f16"}, "f32 or bf16"),
        ({"path": "a.onnx", "precision": "bf16"}, "--calibrate NEW_OK_IMAGES"),
    ]:
        with pytest.raises(okng.OkngError, match=message):
            okng.export(inspector, **mistake)


def test_the_best_device_is_found_for_inspecting_too(inspector: okng.Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "parts.okng")
    images = pictures(2, seed=7)
    found = okng.load(tmp_path / "parts.okng", device="auto").score_samples(images)
    np.testing.assert_allclose(found, inspector.score_samples(images), rtol=1e-4)
