"""Decoding that never ends holds nobody up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from okng.inspection.reading.workers import Workers

STALLED = """
import signal, sys, time
import numpy as np
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.reading.images import Preprocess
from okng.inspection.inspector import Inspector

read = Preprocess.read
def stalled(self, source):
    if source.name == "3.png":
        print("stalled", flush=True)
        time.sleep(600)
    return read(self, source)
Preprocess.read = stalled

class Zero:
    def __call__(self, pixels):
        return np.zeros(len(pixels)), None

signal.signal(signal.SIGINT, signal.default_int_handler)
inspector = Inspector(Zero(), Preprocess("L", 16), Calibration.fit(np.ones(9), None, "split", 0.5), {})
for inspection in inspector.inspect(sys.argv[1], 1):
    pass
"""


def test_one_ctrl_c_ends_a_run_whose_share_does_not_answer(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{i}.png")
    command = [sys.executable, "-c", STALLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "stalled\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
        assert "KeyboardInterrupt" in process.stderr.read()


def test_results_errors_and_what_was_not_begun() -> None:
    with Workers() as workers:
        assert workers.submit(pow, 2, 5).result() == 32
        with pytest.raises(ZeroDivisionError):
            workers.submit(divmod, 1, 0).result()
    with Workers(1) as workers:
        first, others = workers.submit(time.sleep, 0.5), [workers.submit(time.sleep, 60) for _ in range(3)]
        time.sleep(0.1)
    first.result(30)
    deadline = time.monotonic() + 30
    while not all(other.cancelled() for other in others) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(other.cancelled() for other in others)
