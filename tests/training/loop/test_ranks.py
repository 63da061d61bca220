"""Two processes that train together are one with the whole batch; whatever ends one of them ends both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.numpy import load_file
from tests.training.loop import ranked
from torch import distributed, nn

import okng
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.training.loop.launch import launch
from okng.training.loop.ranks import Ranks

SCRIPT = str(Path(ranked.__file__))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fits of two processes, and of one, which is this."""
    made = tmp_path_factory.mktemp("ranks")
    assert launch([sys.executable, SCRIPT, "compared", str(made)], 2) == 0
    ranked.compared(made)
    return made


def found(folder: Path, name: str, count: int, rank: int = 0) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    stem = folder / f"{name}-{count}-{rank}"
    return json.loads(stem.with_suffix(".json").read_text())[0], load_file(stem.with_suffix(".st"))


def assert_alike(one: Any, other: Any, rtol: float) -> None:
    assert [(row["phase"], row["epoch"]) for row in one[0]] == [(row["phase"], row["epoch"]) for row in other[0]]
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose([*a["losses"].values()], [*b["losses"].values()], rtol=rtol)
        assert a.get("validation", 0) == pytest.approx(b.get("validation", 0), rel=rtol)
    for name, tensor in one[1].items():
        np.testing.assert_allclose(tensor, other[1][name], rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("name", ["autoencoder", "sizes", "ganomaly"])
def test_two_processes_learn_what_one_does(folder: Path, name: str) -> None:
    """Odd batches, batches of one image, batch normalisation, two optimisers: the same losses and the same weights."""
    one, two = found(folder, name, 1), found(folder, name, 2)
    assert len(one[0]) >= 2 and one[0][0]["losses"] != one[0][-1]["losses"]
    assert_alike(two, one, 2e-4)
    assert_alike(found(folder, name, 2, rank=1), two, 0)  # both end with the very same


def test_a_codebook_follows_the_images_of_all_processes(folder: Path) -> None:
    """Batches of one image, too, which both processes have and which count once."""
    one, two = found(folder, "codebook", 1), found(folder, "codebook", 2)
    assert np.abs(one[1]["book.rows"] - ranked.Following().book.rows.numpy()).max(1).min() > 0.005
    assert_alike(two, one, 1e-6)
    assert_alike(found(folder, "codebook", 2, rank=1), two, 0)


def test_a_fit_that_was_stopped_goes_on(folder: Path) -> None:
    assert_alike(found(folder, "resumed", 2), found(folder, "autoencoder", 2), 0)


def test_each_process_draws_its_own(folder: Path) -> None:
    drawn = [json.loads((folder / f"noise-2-{rank}.json").read_text())[1] for rank in (0, 1)]
    assert len(drawn[0]) == len(drawn[1]) > 4
    assert not {*drawn[0]} & {*drawn[1]} or {*drawn[0]} & {*drawn[1]} <= {*drawn[0][-3:]}  # validation's are common


def test_what_is_no_number_in_one_process_ends_all(folder: Path) -> None:
    assert ["diverged in epoch 1" in (folder / f"diverged-{rank}").read_text() for rank in (0, 1)] == [True, True]


def test_processes_that_were_given_something_else_end(folder: Path) -> None:
    for rank in (0, 1):
        assert "were given other images" in (folder / f"unlike-{rank}").read_text()


def test_a_frozen_backbone_travels_once_and_again_when_something_moved_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whichever process: here the other one, and an average of weights is a backbone that nothing trains, too."""

    class Net(Backbone):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.net = nn.Linear(2, 2).requires_grad_(False)

    there, sent = [0, 0], []
    monkeypatch.setattr(distributed, "broadcast", lambda content, _: sent.append(content.numel()))
    monkeypatch.setattr(
        distributed, "all_reduce", lambda told, _: told.copy_(torch.maximum(told, torch.tensor(there[: len(told)])))
    )
    ranks = Ranks(Fabric(accelerator="cpu", devices=1))
    ranks.count = 2
    model = nn.ModuleDict({"teacher": Net(), "average": Net(), "student": nn.Linear(3, 1)})
    of_each = []
    for moved, elsewhere in ((None, 0), (None, 0), (model["average"], 0), (None, 1), (None, 0)):
        if moved is not None:
            moved.net.weight.mul_(0.5)
        there[0] = elsewhere
        sent.clear()
        ranks.agree(model)
        of_each.append(sum(sent) // 4)
    assert of_each == [6 + 6 + 4, 4, 6 + 4, 6 + 4, 4]
    sent.clear()
    ranks.agree(model["teacher"])
    assert not sent


@pytest.mark.slow
def test_whoever_is_killed_ends_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert launch([sys.executable, SCRIPT, "killed", str(tmp_path)], 2) == 1
    said = [text for text in capfd.readouterr().err.splitlines() if text.startswith("okng: ")]
    assert said == ["okng: process 2 of 2 was killed by signal 9; --resume goes on with the fit"]


@pytest.mark.parametrize("after", ["time.sleep(60)", "time.sleep(0.5), os.abort()", "time.sleep(0.5), exit(1)"])
@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_waits_for_the_killed_is_not_named(
    killed: int, after: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is killed in the end as well, by us, or fails because the other is gone."""
    monkeypatch.setattr("okng.training.loop.launch.GRACE", 1.0)
    script = f"import os, time; os.kill(os.getpid(), 9) if os.environ['RANK'] == '{killed}' else ({after})"
    assert launch([sys.executable, "-c", script], 2) == 1
    assert capfd.readouterr().err.startswith(f"okng: process {killed + 1} of 2 was killed by signal 9")


def test_processes_that_nobody_started_are_asked_for() -> None:
    with pytest.raises(OkngError, match="torchrun"):
        okng.fit(np.zeros((4, 8, 8, 3), np.uint8), "autoencoder", devices=2)
    with pytest.raises(OkngError, match="from 1 on"):
        okng.fit(np.zeros((4, 8, 8, 3), np.uint8), "autoencoder", devices=0)
    with pytest.raises(OkngError, match="NG images too"):
        okng.fit(np.zeros((4, 8, 8, 3), np.uint8), "vgg11", devices=2)
