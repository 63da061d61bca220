"""The examples of docs/serve.md, typed as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from servers import Shop, serving

from okng.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def test_every_curl_line_works(store: Store, shop: Shop, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    work = tmp_path / "work"
    work.mkdir()
    for name, number in (("part.png", 7), ("other.png", 1)):
        (work / name).write_bytes(shop.image(number))
    lines = re.findall(r"^ +(curl .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) > 12
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", folders=(work,)) as server:
        for line in lines:
            typed = line.replace("localhost:8000", server.url).replace("curl", "curl -sS --fail-with-body", 1)
            done = subprocess.run(typed, shell=True, cwd=work, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{line}: {done.stdout} {done.stderr}"
    for made in ("overlay.png", "thumbnail.jpg", "results.csv"):
        assert (work / made).stat().st_size > 100
