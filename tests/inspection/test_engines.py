"""The line's engines and the .onnx file they read."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import subprocess
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path
from threading import Barrier, Lock

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_cli import okng as command_line
from tests.contract.conftest import pictures

import okng
from okng.errors import OkngError
from okng.exporting import export_onnx
from okng.inspection.engines import ENGINES, SHAPES, OpenVinoEngine, load_onnx, make_engine
from okng.inspection.inspector import Inspector
from okng.inspection.onnx_file import parse_onnx, read_onnx, write_onnx

# What a line consists of. OpenVINO, NumPy and Pillow take nine tenths of its 303 MB and grow by themselves, so what is
# held to is what okng decides: which packages those are, and its own MB, half of which are compiled code.
LINE = {
    "okng", "openvino", "openvino-telemetry", "numpy", "pillow", "safetensors", "contourpy",
    "jinja2", "markupsafe", "typer", "click", "shellingham", "annotated-doc", "typing-extensions",
    "rich", "pygments", "markdown-it-py", "mdurl",
}  # fmt: skip
OWN_LIMIT, LINE_LIMIT = 12, 330  # MB of okng, and of all: from there on README's figure is a tenth too small


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """parts.okng, parts.onnx and a folder of three OK and three NG images."""
    root = tmp_path_factory.mktemp("shop")
    arguments = {"weights": "none", "coreset": 0.1}
    inspector = okng.fit(pictures(24, seed=1), "patchcore", size=64, holdout=0.4, device="cpu", **arguments)
    inspector.save(root / "parts.okng")
    export_onnx(inspector, root / "parts.onnx")
    (root / "images").mkdir()
    for i, image in enumerate([*pictures(3, seed=2), *pictures(3, seed=3, defect=True)]):
        Image.fromarray(image).save(root / "images" / f"{i}.png")
    return root


@pytest.fixture
def within(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shop, which is the current folder."""
    monkeypatch.chdir(shop)
    return shop


def run(shop: Path, *arguments: object, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, for what one prints or lacks that has only just begun."""
    command = [str(python), "-c", "from okng.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=shop, timeout=240)


def test_openvino_forks_nothing_and_tells_nobody(shop: Path) -> None:
    """Its telemetry forks a process that sends, and that keeps pipes and ports of a server open."""
    program = """
import sys
def refuse(event, arguments):
    if event in ("os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
from okng.inspection.engines import load_onnx
assert len(list(load_onnx("parts.onnx", "openvino").inspect("images"))) == 6
assert "openvino_telemetry" not in sys.modules and "openvino" in sys.modules
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=shop, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_file_round_trips_bit_for_bit(tmp_path: Path) -> None:
    scores = np.array([0.1, 1 / 3, 1e-310, 123456789.123456789, np.nextafter(1, 2)])
    for size in (0, 1, 100, 20_000):  # lengths of one, two and three bytes
        manifest = {"note": 'é "sha256": "' + "x" * size}
        write_onnx(tmp_path / "parts.onnx", b"graph" * 9, manifest, {"calibration.scores": scores})
        found, arrays, graph = read_onnx(tmp_path / "parts.onnx")
        assert found == manifest and graph == b"graph" * 9
        assert arrays["calibration.scores"].tobytes() == scores.tobytes()


def test_every_flipped_byte_and_every_cut_is_refused(tmp_path: Path) -> None:
    write_onnx(tmp_path / "parts.onnx", b"graph" * 9, {"note": "x"}, {"calibration.scores": np.ones(2)})
    valid = (tmp_path / "parts.onnx").read_bytes()
    for at in range(len(valid)):
        for bits in (1, 128, 255):
            damaged = bytearray(valid)
            damaged[at] ^= bits
            with pytest.raises(OkngError):
                parse_onnx(bytes(damaged), "parts.onnx")
        with pytest.raises(OkngError):
            parse_onnx(valid[:at], "parts.onnx")


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    for manifest, scores in (
        ({"threshold": float("nan")}, [1.0]),
        ({"rate": float("inf")}, [1.0]),
        ({}, [1.0, np.nan]),
    ):
        with pytest.raises(OkngError, match="no number"):
            write_onnx(tmp_path / "parts.onnx", b"graph", manifest, {"calibration.scores": np.array(scores)})
    assert list(tmp_path.iterdir()) == []


def test_onnx_itself_accepts_the_file(shop: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(shop / "parts.onnx")
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.metadata_props] == ["okng"]
    assert [output.name for output in model.graph.output] == ["score", "map"]


def test_a_graph_that_no_engine_can_run_is_one_line(shop: Path, tmp_path: Path) -> None:
    manifest, arrays, _ = read_onnx(shop / "parts.onnx")
    write_onnx(tmp_path / "parts.onnx", b"no graph", manifest, arrays)
    for name in ENGINES:
        with pytest.raises(OkngError, match=f"{name} can't run this file") as caught:
            load_onnx(tmp_path / "parts.onnx", name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ENGINES)
def test_a_missing_package_is_named_with_its_extra(shop: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    extra = "onnx" if name == "onnxruntime" else name
    with pytest.raises(OkngError, match=rf"{name} is not installed; in okng's clone run: pip install '.\[{extra}\]'"):
        load_onnx(shop / "parts.onnx", name)


def test_auto_takes_what_is_installed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = read_onnx(shop / "parts.onnx")[2]
    assert type(make_engine(graph)).__name__ == "OpenVinoEngine"
    find_spec = importlib_find_spec()
    absent = {"openvino"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name in absent else find_spec(name))
    assert type(make_engine(graph)).__name__ == "OnnxRuntimeEngine"
    absent.add("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OkngError, match=r"'\.\[onnx\]'"):
        make_engine(graph)


def importlib_find_spec():  # type: ignore[no-untyped-def]
    import importlib.util

    return importlib.util.find_spec


def test_threads_are_handed_on(shop: Path) -> None:
    graph = read_onnx(shop / "parts.onnx")[2]
    engine = make_engine(graph, "openvino", threads=1)
    engine(pictures(1, seed=2))
    (compiled,) = engine.lanes.get().values()  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert not compiled.get_property("ENABLE_CPU_PINNING")  # or all lanes' and all processes' first thread share a core
    runtime = make_engine(graph, "onnxruntime", threads=1)
    assert runtime.session.get_session_options().intra_op_num_threads == 1  # type: ignore[attr-defined]
    for threads in (0, 10_000, 1.5):
        with pytest.raises(OkngError, match="threads is 1 to"):
            make_engine(graph, threads=threads)  # type: ignore[arg-type]


ENDING = """
import atexit, sys, threading, time
import numpy as np
import okng
from okng import cli

engine, busy = okng.load(sys.argv[1], engine="openvino").engine, threading.Event()

def compute():
    while True:
        engine(np.zeros((1, 64, 64, 3), np.uint8))
        busy.set()

def main():
    threading.Thread(target=compute, daemon=True).start()
    busy.wait()
    sys.exit(130)

atexit.register(print, "tidied")
cli.main = main
cli.program()
"""


def test_ctrl_c_ends_a_program_whose_threads_compute(shop: Path) -> None:
    """Python's own end aborts it: a thread that comes back from OpenVINO may not go on."""
    command = [sys.executable, "-c", ENDING, str(shop / "parts.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "tidied\n", "")


def test_float32_is_asked_of_openvino(shop: Path) -> None:
    """Its own choice would be bf16 on some machines, and scores would depend on the machine."""
    engine = OpenVinoEngine(read_onnx(shop / "parts.onnx")[2])
    engine(pictures(1, seed=2))
    (compiled,) = engine.lanes.get().values()
    assert "float32" in str(compiled.get_property("INFERENCE_PRECISION_HINT"))


def test_compiled_models_are_few_however_many_shapes(shop: Path) -> None:
    """The shapes beyond the first few share one model, which says the same as a model of their own."""
    graph = read_onnx(shop / "parts.onnx")[2]
    engine = OpenVinoEngine(graph, threads=1)
    for width in range(32, 32 + 16 * (SHAPES + 3), 16):
        images = pictures(2, seed=2)[:, :32].repeat(3, axis=2)[:, :, :width]
        shared, own = engine(images), OpenVinoEngine(graph, threads=1)(images)
        np.testing.assert_allclose(shared[0], own[0], rtol=1e-5)
        np.testing.assert_allclose(shared[1], own[1], rtol=1e-5)  # type: ignore[arg-type]
    lane = engine.lanes.get()
    assert list(lane) == [*((1, 32, width, 3) for width in range(32, 32 + 16 * SHAPES, 16)), ()]


def engine_of(shop: Path, name: str, threads: int | None = None) -> Inspector:
    return okng.load(shop / ("parts.okng" if name == "torch" else "parts.onnx"), engine=name, threads=threads)


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize("name", ["torch", *ENGINES])
def test_threads_are_told_what_one_alone_is(
    shop: Path, name: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores and maps to the last digit, of several shapes, from an inspector that has compiled nothing yet."""
    monkeypatch.setattr("os.cpu_count", lambda: 3)  # lanes, on any machine
    base = [*pictures(4, seed=2), *pictures(4, seed=3, defect=True)]
    images = [np.ascontiguousarray(image[: 64 - 8 * (i % SHAPES)]) for i, image in enumerate(base)]
    alone = engine_of(shop, name, threads)
    expected = [next(alone.inspect(image)) for image in images]
    batched = alone.score_samples(images)  # on several threads PyTorch rounds a batch otherwise than its images alone
    assert len({inspection.score for inspection in expected}) == len(images)
    np.testing.assert_allclose(batched, [inspection.score for inspection in expected], rtol=1e-5)
    shared = engine_of(shop, name, threads)
    together = Barrier(8)

    def inspect_all(first: int) -> None:
        together.wait()
        for i in [*range(first, len(images)), *range(first)] * 3:
            found = next(shared.at(0.05).inspect(images[i], batch_size=1))
            assert found.score == expected[i].score and found.verdict == expected[i].verdict
            assert np.array_equal(found.map, expected[i].map)  # type: ignore[arg-type]
            assert shared.calibration.p_value(found.score) == expected[i].p_value
        assert np.array_equal(shared.score_samples(images), batched)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(inspect_all, range(8)))


@pytest.mark.parametrize("threads", [None, 1])
def test_as_many_calls_run_at_once_as_fit_on_the_cores(
    shop: Path, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    engine = OpenVinoEngine(read_onnx(shop / "parts.onnx")[2], threads=threads)
    running, most, inside = [0], [0], Lock()

    def slow(pixels: np.ndarray) -> dict[str, np.ndarray]:
        with inside:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with inside:
            running[0] -= 1
        return {"score": np.zeros(1)}

    monkeypatch.setattr(engine, "compiled", lambda key: slow)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(engine, [pictures(1, seed=2)] * 24))
    assert most[0] == (1 if threads is None else 3)


def test_a_call_that_fails_gives_its_lane_back(shop: Path) -> None:
    engine = OpenVinoEngine(read_onnx(shop / "parts.onnx")[2])
    for _ in range(3):
        with pytest.raises(RuntimeError):
            engine(np.zeros((1, 64, 64), np.uint8))
    assert engine.lanes.qsize() == 1 and len(engine(pictures(1, seed=2))[0]) == 1


@pytest.mark.parametrize("name", ["torch", *ENGINES])
def test_an_inspector_is_pickled_and_copied(shop: Path, name: str) -> None:
    inspector = engine_of(shop, name, threads=1)
    scores = inspector.score_samples(shop / "images")
    for other in (pickle.loads(pickle.dumps(inspector)), copy.deepcopy(inspector)):
        assert other.engine is not inspector.engine and other.engine.threads == 1
        assert np.array_equal(other.score_samples(shop / "images"), scores)
        assert other.calibration.threshold == inspector.calibration.threshold


def test_a_spawned_process_inspects(shop: Path) -> None:
    inspector = okng.load(shop / "parts.onnx", engine="onnxruntime", threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(inspector.score_samples, (pictures(2, seed=2),))
    assert np.array_equal(found, inspector.score_samples(pictures(2, seed=2)))


@pytest.mark.parametrize("name", ENGINES)
def test_a_score_does_not_depend_on_its_neighbours(shop: Path, name: str) -> None:
    inspector = load_onnx(shop / "parts.onnx", name)
    together = inspector.score_samples(shop / "images")
    alone = [float(inspector.score_samples(path)[0]) for path in sorted((shop / "images").iterdir())]
    assert together.tolist() == alone


def test_the_threshold_can_be_changed(shop: Path, tmp_path: Path) -> None:
    before = load_onnx(shop / "parts.onnx")
    before.at(0.3).save(tmp_path / "parts.onnx")
    after = load_onnx(tmp_path / "parts.onnx")
    assert after.calibration.false_alarm_rate == 0.3
    assert after.calibration.threshold == okng.load(shop / "parts.okng").at(0.3).calibration.threshold
    assert np.array_equal(after.score_samples(shop / "images"), before.score_samples(shop / "images"))
    for inspector, name in ((before, "parts.okng"), (okng.load(shop / "parts.okng"), "new.onnx")):
        with pytest.raises(OkngError, match=r"would be a PyTorch model|ends in \.onnx, unlike"):
            inspector.save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["parts.onnx"]


def test_an_onnx_file_can_not_be_exported_again(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(OkngError, match="already"):
        export_onnx(load_onnx(shop / "parts.onnx"), tmp_path / "parts.onnx")


def test_the_command_line(within: Path, tmp_path: Path) -> None:
    done = run(within, "export", "parts.okng", "-o", tmp_path / "p.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity"]["score"] < 1e-4 and "Warning" not in done.stderr
    told = {}
    for model, engine in (
        ("parts.okng", "torch"),
        (tmp_path / "p.onnx", "openvino"),
        (tmp_path / "p.onnx", "onnxruntime"),
    ):
        asked = ["--engine", engine, "--threads", 1, "--json"]
        done = command_line("inspect", model, "images", *asked)
        assert done.returncode == 0, done.stderr
        told[engine] = [image["verdict"] for image in json.loads(done.stdout)["images"]]
    assert told["openvino"] == told["onnxruntime"] == told["torch"] and told["torch"].count("NG") >= 3
    done = command_line("threshold", tmp_path / "p.onnx", "--score", 5, "--json")
    assert json.loads(done.stdout)["threshold"] == 5 and load_onnx(tmp_path / "p.onnx").calibration.threshold == 5


def test_mistakes_are_one_line_each(within: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    (tmp_path / "cut.onnx").write_bytes(Path("parts.onnx").read_bytes()[:1000])
    for arguments, words in [
        (["inspect", "no.onnx", "images"], "does not exist; `okng export"),
        (["inspect", tmp_path / "other.onnx", "images"], "not an ONNX file that"),
        (["inspect", tmp_path / "cut.onnx", "images"], "damaged"),
        (["inspect", "parts.onnx", "images", "--engine", "torch"], "torch runs .okng files"),
        (["inspect", "parts.okng", "images", "--engine", "openvino"], "okng export"),
        (["inspect", "parts.onnx", "images", "--precision", "bf16"], "--calibrate"),
        (["export", "parts.okng", "--precision", "bf16"], "--calibrate NEW_OK_IMAGES"),
        (["export", "parts.okng", "-o", tmp_path / "p.okng"], "ends in .onnx"),
    ]:
        done = command_line(*arguments)
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1 and last.startswith("okng: ") and words in last, done.stderr
        assert "Traceback" not in done.stderr


def test_bf16_is_calibrated_at_bf16(within: Path, tmp_path: Path) -> None:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16")
    (tmp_path / "new").mkdir()
    for i, image in enumerate(pictures(20, seed=7)):
        Image.fromarray(image).save(tmp_path / "new" / f"{i:02}.png")
    asked = ["--precision", "bf16", "--calibrate", tmp_path / "new", "-o", tmp_path / "p.onnx"]
    done = command_line("export", "parts.okng", *asked, "--json")
    assert done.returncode == 0, done.stderr
    drift = json.loads(done.stdout)["drift"]
    assert 0 < drift["typical"] < 0.05 and drift["ok"] == 20 and drift["auroc"] is None
    inspector = load_onnx(tmp_path / "p.onnx")
    assert inspector.engine.settings["INFERENCE_PRECISION_HINT"] == "bf16"  # type: ignore[attr-defined]
    assert np.array_equal(np.sort(inspector.score_samples(tmp_path / "new")), inspector.calibration.scores)
    for engine, precision in (("onnxruntime", None), ("auto", "f32")):
        with pytest.raises(OkngError):
            load_onnx(tmp_path / "p.onnx", engine, precision)


def test_bf16_takes_no_threshold_by_hand(within: Path, tmp_path: Path) -> None:
    assert command_line("threshold", "parts.okng", "--score", "99", "-o", tmp_path / "m.okng").returncode == 0
    asked = ["--precision", "bf16", "--calibrate", "images", "-o", tmp_path / "m.onnx"]
    done = command_line("export", tmp_path / "m.okng", *asked)
    assert done.returncode == 1 and "okng threshold MODEL --false-alarm-rate" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "m.onnx").exists()


WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "onnx", "scipy", "sklearn"):
            raise ImportError(f"{name} is not part of the line")
sys.meta_path.insert(0, Refuse())
import okng
for engine in ("openvino", "onnxruntime"):
    inspector = okng.load("parts.onnx", engine=engine)
    print(*[inspection.verdict for inspection in inspector.inspect("images")])
assert "torch" not in sys.modules
"""


def test_the_engines_need_no_torch(shop: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, cwd=shop)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and lines[0].endswith("NG NG NG")


@pytest.mark.slow
def test_a_fresh_line_is_small_and_works(shop: Path, tmp_path: Path) -> None:
    """`pip install .[openvino]` into an empty environment: the line's packages and no others, verdicts and a report."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    source = Path(__file__).parents[2]
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", f"{source}[openvino]"]
    done = subprocess.run(list(map(str, install)), capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    (packages,) = (tmp_path / "env/lib").glob("python*/site-packages")
    names = {one.metadata["Name"].lower().replace("_", "-") for one in distributions(path=[str(packages)])}
    assert {"okng", "openvino", "numpy"} <= names <= LINE
    started = time.monotonic()
    asked = ["inspect", "parts.onnx", "images", "--report", tmp_path / "out", "--json"]
    done = run(shop, *asked, python=python)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert [image["verdict"] for image in json.loads(done.stdout)["images"]][3:] == ["NG"] * 3
    assert (tmp_path / "out/report.html").stat().st_size > 10_000
    size, own = (
        sum(file.lstat().st_blocks * 512 for file in folder.rglob("*")) / 2**20  # as `du -sm` counts
        for folder in (packages, packages / "okng")
    )
    print(f"site-packages {size:.0f} MB, {own:.1f} of them okng, cold start to the report {seconds:.1f} s")
    assert own <= OWN_LIMIT and size <= LINE_LIMIT
