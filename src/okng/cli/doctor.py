"""`okng doctor`: what is installed and works, and how to get what is missing."""

from __future__ import annotations

import importlib
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Annotated

import typer

# The smallest graph there is, y = x of float32 (1), so that an engine has to run something.
IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a"
    "0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
PURPOSES = {
    "train": ("learning and measuring", ("torch", "timm", "torchvision", "lightning_fabric", "sklearn", "scipy")),
    "openvino": ("inspecting with an exported model, quickest on Intel CPUs", ("openvino",)),
    "onnx": ("inspecting with an exported model, on other processors too", ("onnxruntime",)),
    "train,export": ("exporting", ("torch", "onnx", "onnxruntime")),
    "train,clip": ("learning with words, by WinCLIP", ("torch", "open_clip")),
    "serve": (
        "okng serve, okng watch",
        ("fastapi", "uvicorn", "sqlalchemy", "watchfiles", "httpx"),
    ),
    "serve,video": ("videos and cameras", ("cv2",)),
    "serve,mqtt": ("verdicts by MQTT", ("paho.mqtt",)),
    "serve,opcua": ("verdicts by OPC UA", ("asyncua",)),
    "serve,postgres": ("a store in PostgreSQL", ("psycopg",)),
    "serve,parquet": ("tables as Parquet", ("pyarrow",)),
    "demo": ("okng demo", ("elpv_dataset",)),
    "cloud": ("images in storage: s3://, https://", ("fsspec", "s3fs", "aiohttp")),
    "ray": ("inspecting on a cluster", ("ray", "pyarrow")),
    "heif": ("images of telephones (.heic)", ("pi_heif",)),
}


@dataclass(frozen=True)
class Finding:
    """`state` is "works", "missing" or "broken"; `remedy` is what to type, or blank."""

    what: str
    state: str
    said: str
    remedy: str = ""


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Say what is installed and works on this machine, and how to get what is missing."""
    from okng.cli.common import print_json

    found = [system(), *of_project(ctx), *(of_extra(extra) for extra in PURPOSES), *engines(), *devices()]
    if as_json:
        print_json({"findings": [asdict(one) for one in found]})
    else:
        for one in found:
            print(f"{one.state:<8} {one.what:<18} {one.said}" + (f"; {one.remedy}" if one.remedy else ""))
        if not any(one.state == "works" and one.what.startswith("engine") for one in found):
            print("\nnothing here can judge an image yet; on the line: pip install '.[openvino]'")
    if any(one.state == "broken" for one in found):
        raise typer.Exit(1)


def system() -> Finding:
    """Okng itself and what it runs on."""
    import okng

    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding("okng", "works", f"{okng.__version__}, {machine}")


def of_project(ctx: typer.Context) -> list[Finding]:
    """The file of a project's defaults, where one was read."""
    given = ctx.parent.default_map if ctx.parent is not None else None
    said = "; ".join(f"{verb}: {', '.join(options)}" for verb, options in (given or {}).items())
    return [Finding("okng.toml", "works", f"defaults for {said}")] if said else []


def of_extra(extra: str) -> Finding:
    """Whether all packages of an extra can be imported."""
    from okng.errors import TWO_BUILDS, of_two_builds
    from okng.inspection.engines import import_openvino

    purpose, packages = PURPOSES[extra]
    install = f"in okng's clone: pip install '.[{extra}]'"
    missing = [package for package in packages if not there(package)]
    if missing:
        return Finding(extra, "missing", f"{purpose}: without {', '.join(missing)}", install)
    for package in packages:
        try:
            import_openvino() if package == "openvino" else importlib.import_module(package)
        except Exception as error:
            said = f"{purpose}: {package} can't be imported: {line_of(error)}"
            return Finding(extra, "broken", said, TWO_BUILDS if of_two_builds(error) else install)
    return Finding(extra, "works", purpose)


def there(package: str) -> bool:
    """Whether it is installed; nothing of it runs but the packages that it lies in."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def engines() -> list[Finding]:
    """Each engine that is installed, run once."""
    found = []
    for name, run in (("torch", run_torch), ("openvino", run_openvino), ("onnxruntime", run_onnxruntime)):
        if there(name):
            try:
                run()
                found.append(Finding(f"engine {name}", "works", str(sys.modules[name].__version__)))
            except Exception as error:
                found.append(Finding(f"engine {name}", "broken", line_of(error), "install it again"))
    return found


def run_torch() -> None:
    """A product of two matrices."""
    import torch

    assert float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) == 8


def run_openvino() -> None:
    """The smallest graph, compiled for the CPU."""
    import numpy as np

    from okng.inspection.engines import import_openvino

    core = import_openvino().Core()
    compiled = core.compile_model(core.read_model(IDENTITY), "CPU")
    assert compiled([np.ones(1, np.float32)])[0][0] == 1


def run_onnxruntime() -> None:
    """The same."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(IDENTITY, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones(1, np.float32)})[0][0] == 1


def devices() -> list[Finding]:
    """Where PyTorch can work."""
    if not there("torch"):
        return []
    import torch

    found = [Finding("device cpu", "works", f"{torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        found.append(Finding("device cuda", "works", torch.cuda.get_device_name(0)))
    elif torch.version.cuda is None:
        found.append(Finding("device cuda", "missing", "this PyTorch is the build for CPUs"))
    else:
        found.append(Finding("device cuda", "missing", "PyTorch is built for it and finds no GPU or no driver"))
    if torch.backends.mps.is_available():
        found.append(Finding("device mps", "works", "Apple's GPU"))
    return found


def line_of(error: Exception) -> str:
    """The first line of what it says."""
    from okng.errors import in_one_line

    return in_one_line(error)
