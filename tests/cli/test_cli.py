"""The command line as a person meets it: by exit codes and what is printed where."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.contract.conftest import pictures

import okng as library
from okng.cli import main
from okng.detectors.cards import cards
from okng.errors import OkngError
from okng.inspection.model_file import read_model, write_model

FAST = ["-p", "weights=none", "-p", "coreset=0.1", "--size", "64", "--device", "cpu"]


def okng(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has torch loaded already."""
    words = ["okng", *map(str, arguments)]
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = words
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as done:
            main()
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(words, int(done.value.code or 0), out.getvalue(), err.getvalue())


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The single line of an error, checked to be one."""
    assert done.returncode != 0 and "Traceback" not in done.stderr and done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("okng: "), done.stderr
    return last


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the MVTec AD layout, and a model fitted on it."""
    root = tmp_path_factory.mktemp("shop")
    for folder, count, seed, defect in [
        ("train/good", 24, 1, False),
        ("test/good", 6, 2, False),
        ("test/cut", 4, 3, True),
    ]:
        (root / "parts" / folder).mkdir(parents=True)
        for i, image in enumerate(pictures(count, seed, defect)):
            Image.fromarray(image).save(root / "parts" / folder / f"{i:02}.png")
            if defect:
                mask = root / "parts/ground_truth/cut" / f"{i:02}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(((image[..., 2] > 180) & (image[..., 0] < 90)).astype(np.uint8) * 255).save(mask)
    done = okng("train", root / "parts", "-o", root / "parts.okng", "--holdout", 0.4, "--json", *FAST)
    assert done.returncode == 0, done.stderr
    (root / "train.json").write_text(done.stdout)
    (root / "train.err").write_text(done.stderr)
    return root


def test_train_says_what_it_found_and_what_it_promises(shop: Path) -> None:
    told, result = (shop / "train.err").read_text(), json.loads((shop / "train.json").read_text())
    assert not {"seen", "unlearnt", "calibrating"} & result.keys()  # digests, as many as images
    assert "train  good" in told and "test   cut" in told and "input 64x64: as asked" in told
    assert result["calibration"]["n"] == 10 and result["provenance"]["held_out"] == 10
    assert "10 can promise 9.09% at best" in result["promise"]
    assert sorted(path.name for path in shop.glob("parts.okng*")) == ["parts.okng"]


def test_a_model_that_was_there_is_kept_and_the_stray_image_is_said(shop: Path, tmp_path: Path) -> None:
    model, good = tmp_path / "parts.okng", tmp_path / "good"
    shutil.copytree(shop / "parts/train/good", good)
    shutil.copy(shop / "parts.okng", model)
    before = model.read_bytes()
    wrong = okng("train", good, "-o", model, *FAST, "-p", "coreset=2")
    assert "coreset_size=2" in one_line(wrong) and model.read_bytes() == before
    Image.new("RGB", (64, 64)).save(good / "black.png")
    words = [
        "train",
        good,
        "-o",
        model,
        "--json",
        "--report",
        tmp_path / "look",
        "--group-by",
        r"(\d+|black)\.png",
        "--language",
        "ko",
        *FAST,
    ]
    done = okng(*words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "parts.okng.bak").read_bytes() == before and "is kept as" in done.stderr
    assert "good/black.png scores" in done.stderr and "is it OK?" in done.stderr
    result = json.loads(done.stdout)
    assert result["provenance"]["stand_apart"][0]["image"] == "good/black.png"
    assert result["calibration"]["unit"] == "group" and result["provenance"]["groups"] == 25
    page = (tmp_path / "look/training.html").read_text()
    assert "good/black.png" in page and "모두 OK입니까?" in page and "Are all of these OK" not in page
    forced = okng(*words[:5], "--force", "--drop-outliers", *FAST)
    assert json.loads(forced.stdout)["calibration"]["dropped"] == 1
    assert sorted(path.name for path in tmp_path.glob("parts.okng*")) == ["parts.okng", "parts.okng.bak"]


def test_a_list_of_images_is_learnt_as_it_is_given(shop: Path, tmp_path: Path) -> None:
    good = sorted((shop / "parts/train/good").iterdir())[:6]
    (tmp_path / "ok.txt").write_text("\n".join(map(str, good)))
    done = okng("train", tmp_path / "ok.txt", "-o", tmp_path / "new.okng", *FAST)
    assert done.returncode == 0 and "learnt from 6 of 6 images" in done.stderr


def test_of_an_update_and_a_new_threshold_at_the_same_time_none_is_lost(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from okng.training import update as updating

    model = tmp_path / "parts.okng"
    shutil.copy(shop / "parts.okng", model)
    run = updating.run_phases

    def meanwhile(*arguments: object, **settings: object) -> None:
        okng("threshold", model, "--score", 7.5)
        run(*arguments, **settings)

    monkeypatch.setattr(updating, "run_phases", meanwhile)
    words = one_line(okng("train", "--update", model, shop / "parts/test/good", "--device", "cpu"))
    assert "was changed by another command" in words and "run this one again" in words
    assert json.loads(okng("threshold", model, "--json").stdout)["threshold"] == 7.5
    monkeypatch.undo()
    assert okng("train", "--update", model, shop / "parts/test/good", "--device", "cpu").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["parts.okng"]


def test_inspect_json_and_files(shop: Path) -> None:
    asked = ["--report", shop / "out", "--overlays", shop / "maps", "--csv", shop / "all.csv", "--json"]
    done = okng("inspect", shop / "parts.okng", shop / "parts/test", "--false-alarm-rate", 0.1, *asked)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["images"]) == 10 and result["skipped"] == []
    for image in result["images"]:
        assert {"path", "score", "p_value", "verdict", "regions"} <= image.keys()
        if "/cut/" in image["path"]:
            assert image["verdict"] == "NG" and image["regions"]
    assert result["counts"]["NG"] >= 4
    assert (shop / "out/report.html").stat().st_size > 10_000
    with (shop / "all.csv").open() as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [image["verdict"] for image in result["images"]]
    assert len(list((shop / "maps").rglob("*.png"))) == 10
    assert len(list((shop / "maps/NG").glob("*.png"))) == result["counts"]["NG"]


def test_inspect_writes_nothing_unasked(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = okng("inspect", shop / "parts.okng", shop / "parts/test/cut")
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []
    assert len(done.stdout.splitlines()) == 4 and all(line.startswith("NG") for line in done.stdout.splitlines())


def test_evaluate(shop: Path) -> None:
    done = okng("evaluate", shop / "parts.okng", shop / "parts", "--json")
    figures = json.loads(done.stdout)
    assert figures["image_auroc"] == 1.0 and figures["pixel_auroc"] > 0.9 and 0 < figures["aupro"] <= 1
    assert "oracle" in figures["notes"]["f1_max"]


def test_a_protocol_and_a_contamination_are_the_same_in_training_and_evaluation(tmp_path: Path) -> None:
    for kind, seed in (("disc", 1), ("cut", 2), ("other", 3)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i, image in enumerate(pictures(20, seed, kind != "disc")):
            Image.fromarray(image).save(tmp_path / "set" / kind / f"{i:02}.png")
    divided = ["--normal", "disc,other", "--protocol", "80/20", "--contamination", 0.1, "--seed", 3]
    done = okng("train", tmp_path / "set", "-o", tmp_path / "a.okng", "--holdout", 0.3, *FAST, *divided, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provenance"]["images"] == 36  # 80 % of 40, and 4 NG: a tenth
    assert "Contamination 10.00%" in done.stderr and "train  cut" in done.stderr
    figures = json.loads(okng("evaluate", tmp_path / "a.okng", tmp_path / "set", *divided, "--json").stdout)
    assert (figures["n_ok"], figures["n_ng"]) == (8, 4)
    assert "80/20 balanced by seed 3" in figures["protocol"] and figures["left_out"] == 0
    mixed = okng("evaluate", tmp_path / "a.okng", tmp_path / "set", *divided[:-1], 4, "--json")
    figures = json.loads(mixed.stdout)
    assert figures["left_out"] > 0 and figures["n_ok"] + figures["n_ng"] + figures["left_out"] == 12
    assert "because the model was given them to learn" in mixed.stderr
    wrong = okng(
        "train", tmp_path / "set", "--protocol", "80/20", "--abnormal", "cut", "-o", tmp_path / "b.okng", *FAST
    )
    assert "leave-one-class-out takes the one NG class" in one_line(wrong)


def test_evaluate_with_one_class_missing_says_why(shop: Path, tmp_path: Path) -> None:
    for folder in ("train/good", "test/good"):
        (tmp_path / "parts" / folder).mkdir(parents=True)
        Image.fromarray(pictures(1, 5)[0]).save(tmp_path / "parts" / folder / "0.png")
    figures = json.loads(okng("evaluate", shop / "parts.okng", tmp_path / "parts", "--json").stdout)
    assert figures["image_auroc"] is None and "all OK" in figures["notes"]["image_auroc"]


def test_the_threshold_is_a_number_in_the_file(shop: Path, tmp_path: Path) -> None:
    before = json.loads(okng("threshold", shop / "parts.okng", "--json").stdout)
    changed = tmp_path / "changed.okng"
    after = okng("threshold", shop / "parts.okng", "--false-alarm-rate", 0.3, "-o", changed, "--json")
    assert json.loads(after.stdout)["threshold"] < before["threshold"]
    assert json.loads(okng("threshold", changed, "--json").stdout)["false_alarm_rate"] == 0.3


def test_a_mask_of_another_size_is_named(shop: Path, tmp_path: Path) -> None:
    for folder in ("train/good", "test/cut", "ground_truth/cut"):
        (tmp_path / "parts" / folder).mkdir(parents=True)
    for folder in ("train/good", "test/cut"):
        Image.fromarray(pictures(1, 5)[0]).save(tmp_path / "parts" / folder / "0.png")
    Image.new("L", (50, 60), 255).save(tmp_path / "parts/ground_truth/cut/0_mask.png")
    assert "0_mask.png is 60x50" in one_line(okng("evaluate", shop / "parts.okng", tmp_path / "parts"))


def test_mistakes_are_one_line_each(shop: Path, tmp_path: Path) -> None:
    good, model = shop / "parts/train/good", shop / "parts.okng"
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("no image")
    (tmp_path / "one").mkdir()
    Image.fromarray(pictures(1, 5)[0]).save(tmp_path / "one/0.png")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/0.png").write_text("text")
    flipped = bytearray(model.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.okng").write_bytes(flipped)
    (tmp_path / "cut.okng").write_bytes(model.read_bytes()[:1000])
    (tmp_path / "pickle.okng").write_bytes(b"\x80\x04pickle")
    out = ["-o", tmp_path / "new.okng", *FAST]
    for arguments, words in [
        (["train", tmp_path / "empty", *out], "is empty"),
        (["train", tmp_path / "texts", *out], "no image"),
        (["train", tmp_path / "one", *out], "at least 2"),
        (["train", tmp_path / "fake", *out], "no readable image"),
        (["train", good, *out, "-d", "pachcore"], "did you mean patchcore"),
        (["train", good, *out, "--precision", "f64"], "precision is f32, bf16 or f16, not 'f64'"),
        (["train", good, *out, "-p", "backbone=vit_tiny_patch16_224", "-p", "strides=16"], "backbone is a CNN"),
        (["train", good, *out, "-p", "corset=1"], "did you mean coreset"),
        (["train", good, *out, "-p", "coreset=lots"], "takes a number"),
        (["train", good, *out, "--size", "big"], "--size is one number"),
        (["train", good, "-o", "/proc/nowhere/x.okng"], "can't be written"),
        (["train", good, "-o", tmp_path], "is a folder"),
        (["train", good, "-o", "."], "is a folder"),
        (["train", good, "--update", tmp_path / "new.onnx"], "update the .okng file it was exported from"),
        (["train", good, *out, "-p", "backbone=!!!"], r" more"),
        (["train", good, "-o", tmp_path / "new.onnx"], "save it as .okng, then run: okng export"),
        (["train", good, "-o", tmp_path / "new.model"], "ends in .okng, unlike"),
        (["train", good, *out, "--seed", "99999999999999"], "a seed is from 0 to"),
        (["train", good, *out, "--budget", "gpu"], "a budget is cpu or paper"),
        (
            ["train", good, "--update", model, "--budget", "cpu"],
            "leave out -d, -p, --size, --tile, --time-per-image",
        ),
        (["train", good, *out, "-d", "autoencoder", "-p", "image_size=70,50"], "follows from the images"),
        (["inspect", model, good, "--csv", "/proc/nowhere/x.csv"], "can't be written"),
        (["evaluate", model, shop / "parts", "--report", "/proc/nowhere"], "can't be written"),
        (["inspect", model, good, "--language", "fr"], "pages are in en or ko"),
        (["inspect", tmp_path / "no.okng", good], "does not exist"),
        (["inspect", model, tmp_path / "no"], "does not exist"),
        (["inspect", model, tmp_path / "empty"], "no images in"),
        (["inspect", tmp_path / "flipped.okng", good], "damaged"),
        (["inspect", tmp_path / "cut.okng", good], "not a whole"),
        (["inspect", tmp_path / "pickle.okng", good], "pickle"),
        (["inspect", model, good, "--false-alarm-rate", "2"], "between 0 and 1"),
        (["inspect", model, good, "--device", "nope"], "can't use the device 'nope'"),
        (["inspect", model, good, "--threads", "0"], "threads is 1 to"),
        (["threshold", model, "-o", tmp_path / "new.okng"], "add --false-alarm-rate or --score"),
        (["list", "patchcor"], "did you mean patchcore"),
    ]:
        assert words in one_line(okng(*arguments)), arguments
    assert not (tmp_path / "new.okng").exists()


def test_a_mask_that_is_no_image_is_named_before_anything_is_scored(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "parts", tmp_path / "parts")
    (tmp_path / "parts/ground_truth/cut/03_mask.png").write_text("no image")
    assert "03_mask.png" in one_line(okng("evaluate", shop / "parts.okng", tmp_path / "parts"))


WITHOUT_TRAIN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "lightning_fabric"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import okng as library
from okng.cli import main
main()
"""


@pytest.mark.parametrize(
    "words", [["train", "parts"], ["explain", "parts.okng", "parts"], ["inspect", "parts.okng", "parts"]]
)
def test_without_the_extra_its_name_is_said(shop: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRAIN, *words], cwd=shop, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("is not installed; in okng's clone run: pip install '.[train]'"), (
        done.stderr
    )


def test_the_base_install_changes_thresholds(shop: Path, tmp_path: Path) -> None:
    """Without PyTorch; all else that the file holds stays as it was, to the byte."""
    words = ["threshold", "parts.okng", "--false-alarm-rate", "0.3", "-o", str(tmp_path / "other.okng")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRAIN, *words], cwd=shop, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (before, held), (after, kept) = (read_model(path) for path in (shop / "parts.okng", tmp_path / "other.okng"))
    assert after["calibration"]["false_alarm_rate"] == 0.3
    assert {**after, "calibration": 0} == {**before, "calibration": 0} and held.keys() == kept.keys()
    assert all(held[name].tobytes() == kept[name].tobytes() for name in held)


def test_a_system_that_shuts_down_is_like_ctrl_c() -> None:
    program = "import os, signal; from okng.cli import app, main\n"
    program += "app.command('wait')(lambda: os.kill(os.getpid(), signal.SIGTERM))\nmain()"
    done = subprocess.run([sys.executable, "-c", program, "wait"], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and done.stderr == "okng: stopped; nothing is left half-written\n"


AUTOENCODER = [
    "-d", "autoencoder", "-p", "epochs=6", "-p", "width=4", "-p", "code=4", "--holdout", "0.4", "--size", "64",
    "--device", "cpu",
]  # fmt: skip


def test_an_interrupted_fit_leaves_nothing_half_written_and_resumes(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = ["train", shop / "parts", *AUTOENCODER]
    written = []

    def write_then_ctrl_c(*arguments: object) -> None:
        write_model(*arguments)  # type: ignore[arg-type]
        written.append(arguments)
        if len(written) == 3:
            raise KeyboardInterrupt  # not a signal: a process started in the background may ignore those

    monkeypatch.setattr("okng.training.loop.checkpoint.write_model", write_then_ctrl_c)
    stopped = okng(*fit, "-o", tmp_path / "a.okng")
    assert stopped.returncode == 130 and stopped.stderr.endswith("okng: stopped; nothing is left half-written\n")
    assert "a.okng.partial is kept: the same command with --resume goes on" in stopped.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.okng.partial"]
    resumed = okng(*fit, "-o", tmp_path / "a.okng", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from" in resumed.stderr and "epoch 4" in resumed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.okng"]
    assert okng(*fit, "-o", tmp_path / "whole.okng").returncode == 0
    scores = [okng("inspect", tmp_path / f"{name}.okng", shop / "parts/test").stdout for name in ("a", "whole")]
    assert scores[0] == scores[1]


def test_curves_of_a_fit(shop: Path, tmp_path: Path) -> None:
    fit = ["train", shop / "parts", *AUTOENCODER, "-o", tmp_path / "a.okng", "--curves"]
    assert "--curves is a page such as curves.html or a table" in one_line(okng(*fit, tmp_path / "a.png"))
    one_pass = ["train", shop / "parts", "-d", "padim", "--curves", tmp_path / "a.csv"]
    assert "padim learns in one pass, so it has no losses" in one_line(okng(*one_pass))
    update = ["train", shop / "parts", "--update", tmp_path / "a.okng", "--curves", tmp_path / "a.csv"]
    assert "leave them out of an update" in one_line(okng(*update))
    done = okng(*fit, tmp_path / "curves" / "a.csv")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "curves" / "a.csv").read_text().splitlines()) == 1 + 6


def test_auxiliary_images_where_there_is_no_use_for_them(shop: Path, tmp_path: Path) -> None:
    fit = ["train", shop / "parts", *AUTOENCODER, "-o", tmp_path / "a.okng", "--auxiliary"]
    assert "autoencoder uses no auxiliary images" in one_line(okng(*fit, shop / "parts"))
    assert "--auxiliary is a folder of images" in one_line(okng(*fit, tmp_path / "nothing"))


def test_a_fit_that_cannot_be_saved_is_not_lost(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = ["train", shop / "parts", *AUTOENCODER, "-o", tmp_path / "a.okng"]

    def full(*_: object) -> None:
        raise OkngError("a.okng can't be written: No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("okng.inspection.inspector.Inspector.save", full)
        assert one_line(okng(*fit)).endswith(
            "No space left on device; the fit is kept: put that right and add --resume"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.okng.partial"]
    with monkeypatch.context() as lessons:
        lessons.setattr("okng.training.loop.phases.train", None)  # nothing is learnt again
        assert okng(*fit, "--resume").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.okng"]


def test_list(tmp_path: Path) -> None:
    assert {"patchcore", "padim", "stfpm", "autoencoder"} <= json.loads(okng("list", "--json").stdout).keys()
    card = json.loads(okng("list", "patchcore", "--json").stdout)
    assert card["parameters"]["coreset"] == 0.01 and card["published"]
    assert "elpv" in okng("list", "datasets").stdout
    assert "rtsp://" in okng("list", "sources").stdout


def test_a_budget_on_the_command_line(shop: Path, tmp_path: Path) -> None:
    """Beneath what is given with -p and --size."""
    explicit = ["-p", "epochs=1", "-p", "code=3", "--size", 24]
    done = okng("train", shop / "parts", "-d", "autoencoder", "--budget", "cpu", *explicit, "-o", tmp_path / "a.okng")
    assert done.returncode == 0 and "budget cpu: size=128, code=100, epochs=60" in done.stderr, done.stderr
    arguments = library.load(tmp_path / "a.okng").manifest["detector"]["arguments"]
    assert (arguments["epochs"], arguments["code"], arguments["batch_size"]) == (1, 3, 16)
    assert tuple(arguments["image_size"]) == (24, 24)


def test_where_the_defaults_take_long_the_budget_is_named() -> None:
    from okng.cli.train import _cheaper

    assert _cheaper("patch_memory") == _cheaper("patchcore") == ""  # whose defaults are made for this
    assert re.fullmatch(r"; --budget cpu took \d+ \w+ to .*, test included, on two cores", _cheaper("anogan"))


def test_list_marks_the_default_and_shows_figures_newest_first() -> None:
    found = json.loads(okng("list", "--json").stdout)
    assert [name for name, card in found.items() if card["default"]] == ["patch_memory"]
    years = [card["year"] for card in found.values() if card["year"] is not None][1:]
    assert next(iter(found)) == "patch_memory" and years == sorted(years, reverse=True)
    assert all(card["good_for"] for card in found.values() if card["family"] != "from outside")
    lines = okng("list").stdout.splitlines()
    assert lines[1].startswith("* patch_memory")
    shown = next(line for line in lines if line.startswith("  patchcore"))
    assert f"{found['patchcore']['measured']['image_auroc']:.3f}" in shown
    assert all(len(line) <= 132 for line in lines)


def test_list_of_one_explains_its_parameters() -> None:
    card = okng("list", "PatchMemory").stdout
    assert "  -p backbone=efficientnet_lite0 -p strides=8,16,32 -p weights=imagenet\n      the frozen network" in card
    assert "  -p coreset=0.01\n      the share of all patches kept in memory" in card and "; the default)" in card
    assert "-p coreset_size=none" in okng("list", "patchcore").stdout  # as it can be typed
    assert "-p skips=true" in okng("list", "aesc").stdout


def test_help_of_update_names_all_that_can_be_updated() -> None:
    said = okng("train", "--help").stdout
    assert all(name in said for name, card in cards().items() if card.updates)


def test_figures_of_other_arguments_can_be_told_apart() -> None:
    """Rows of one measurement stand together; what is no default stands beside them."""
    lines = okng("list", "patchcore").stdout.partition("\nmeasured:\n")[2].splitlines()
    headed = [line.partition(": ")[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert "  transistor" in headed and "  transistor, sigma=4.0" in headed
    assert len(set(headed)) == len(headed)
    assert all(len(line) <= 112 for line in lines if "python benchmarks/" not in line)


def test_verbs_of_other_tools_are_answered_with_ours() -> None:
    for word, meant in [("predict", "inspect"), ("test", "evaluate"), ("val", "evaluate"), ("fit", "train")]:
        assert one_line(okng(word, "parts.okng", "x")).endswith(f"it is called: okng {meant}")
    assert "did you mean inspect" in one_line(okng("inspct", "parts.okng"))


@pytest.mark.parametrize("word", ["--help", "list"])
def test_help_imports_nothing_heavy(word: str) -> None:
    code = (
        f"import sys; sys.argv = ['okng', {word!r}]\n"
        "from okng.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'timm', 'scipy', 'sklearn', 'PIL', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pages_lists_and_what_is_left_out(shop: Path, tmp_path: Path) -> None:
    pages = [Image.fromarray(image) for image in pictures(3, seed=5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "b.psd").touch()
    done = okng("inspect", shop / "parts.okng", tmp_path, "--csv", tmp_path / "r.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [row["path"] for row in rows] == [f"{tmp_path}/a.tif[{i}]" for i in range(3)]
    assert f"okng: 1 file of formats okng doesn't read left out of {tmp_path} (.psd 1); save them as PNG" in done.stderr
    again = okng("inspect", shop / "parts.okng", tmp_path / "r.csv", "--json")
    assert [image["score"] for image in json.loads(again.stdout)["images"]] == [float(row["score"]) for row in rows]
    one = okng("inspect", shop / "parts.okng", f"{tmp_path}/a.tif[1]", "--json")
    assert json.loads(one.stdout)["images"][0]["score"] == pytest.approx(float(rows[1]["score"]))


def test_images_unlike_those_learnt_are_a_line(shop: Path, tmp_path: Path) -> None:
    for i, image in enumerate(pictures(5, seed=5)):
        Image.fromarray(255 - image.repeat(4, 0).repeat(4, 1)).convert("L").save(tmp_path / f"{i}.jpg")
    done = okng("inspect", shop / "parts.okng", tmp_path)
    (line,) = [line for line in done.stderr.splitlines() if "unlike those learnt from: " in line]
    assert line.startswith("okng: the images are") and "grey against colour" in line and "JPEG against PNG" in line


def test_a_tilde_is_the_home_folder_in_every_path(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(shop))
    done = okng("inspect", "~/parts.okng", "~/parts/test/good", f"--csv={tmp_path}/r.csv", "--report=~/tilde")
    assert done.returncode == 0, done.stderr
    assert (shop / "tilde/report.html").exists()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("okng insp", {"inspect"}), ("okng train --false", {"--false-alarm-rate"}), ("okng ser", {"serve"})],
)
def test_a_shell_completes_verbs_and_options(typed: str, offered: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What bash asks once `okng --install-completion` has been typed."""
    monkeypatch.setenv("_OKNG_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    done = okng()
    assert done.returncode == 0 and set(done.stdout.split()) == offered
