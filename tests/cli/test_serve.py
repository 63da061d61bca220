"""`okng serve` as a person starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from okng.cli import app
from okng.cli.serve import _beside, _named, check_address
from okng.errors import OkngError
from okng.store import Store


def serve(*words: str) -> str:
    """What it says to a person: the error, or nothing."""
    try:
        app(["serve", *words], standalone_mode=False)
    except OkngError as error:
        return str(error)
    return ""


def test_tokens_hosts_and_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked of the store before a model is needed."""
    monkeypatch.chdir(tmp_path)
    assert "so it needs a token first: okng serve --add-token NAME" in serve("none.onnx", "--host", "0.0.0.0")
    assert serve("--add-token", "eve", "--role", "admin") == ""
    token, said = capsys.readouterr()
    assert token.startswith("okng_") and "shown this once" in said
    store = Store.open("okng.sqlite")
    account = store.accounts.of_token(token.strip())
    assert account is not None and (account.name, account.role) == ("eve", "admin")
    assert serve("none.onnx", "--host", "0.0.0.0").startswith("none.onnx does not exist")
    assert serve("--remove-token", "eve") == "" and store.accounts.all() == []
    assert "is no folder" in serve("none.onnx", "--folder", "nowhere")
    assert "images to keep are" in serve("none.onnx", "--keep-images", "some")
    assert "there is no model to serve" in serve()
    store.close()


def test_models_have_names(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.onnx"
    odd.touch()
    assert _named(["m/parts.onnx", "left=m/other.okng", str(odd)]) == {
        "parts": Path("m/parts.onnx"),
        "left": Path("m/other.okng"),
        "a=b": odd,
    }
    with pytest.raises(OkngError, match="two models are called parts"):
        _named(["a/parts.onnx", "b/parts.onnx"])
    assert _beside("/data/line.sqlite") == Path("/data/okng-models") and _beside("postgresql://a/b") == Path(
        "okng-models"
    )


def test_an_address_that_is_not_here_is_said_with_the_reason() -> None:
    with pytest.raises(OkngError, match=r"can't listen on 192\.0\.2\.1:0 \(.+\); give another --host or --port"):
        check_address("192.0.2.1", 0)  # of the block for documents
    check_address("localhost", 0)


WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {absent!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
from okng.cli import main
sys.argv[1:] = ["serve", "parts.onnx"]
main()
"""


@pytest.mark.parametrize("absent", ["uvicorn", "sqlalchemy"])
def test_without_the_extra_it_says_which(tmp_path: Path, absent: str) -> None:
    command = [sys.executable, "-c", WITHOUT.format(absent=absent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        f"okng: {absent} is not installed; in okng's clone run: pip install '.[serve]'\n",
    )


MODEL = """
import numpy as np, sys
from pathlib import Path
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.reading.images import Preprocess
from okng.inspection.inspector import Inspector
import okng, okng.cli

class Darkness:
    def __call__(self, pixels):
        maps = 255 - pixels.mean(axis=3, dtype=np.float32)
        return maps.max(axis=(1, 2)), maps
    def write(self, path, manifest, arrays):
        Path(path).write_bytes(b"dark")

held = np.linspace(20, 60, 99)
dark = Inspector(Darkness(), Preprocess("L", 64, 8), Calibration.fit(held, held, "split", 0.05), {{}})
okng.load = lambda path, **how: dark
sys.argv[1:] = ["serve", "dark.onnx", "--port", "{port}"]
okng.cli.main()
"""


def test_it_serves_and_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    """No torch, no engine: one that looks for darkness. SIGTERM, as a system that shuts down sends, is no mistake."""
    (tmp_path / "dark.onnx").write_bytes(b"dark")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-c", MODEL.format(port=port)]
        busy = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert busy.returncode == 1
        assert busy.stderr == f"okng: can't listen on 127.0.0.1:{port}; end what does, or give another --port\n"
        assert [path.name for path in tmp_path.iterdir()] == ["dark.onnx"]  # no store, and no address that answers not
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stderr is not None
        lines = []
        while "Ctrl-C" not in (line := server.stderr.readline()):
            assert line, lines
            lines.append(line)
        assert any("whoever uses this machine may do everything here" in line for line in lines)
        transport = httpx.HTTPTransport(retries=10)
        with httpx.Client(transport=transport) as client:
            assert client.get(f"http://127.0.0.1:{port}/health").json()["status"] == "ok"
        os.kill(server.pid, signal.SIGTERM)
        rest = server.stderr.read()
        assert server.wait(30) == 0 and "all that was answered is in the store" in rest
