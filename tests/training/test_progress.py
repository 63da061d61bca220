"""Where there is no terminal, a line now and then says how far the work is and how long it will take."""

from __future__ import annotations

import pytest
from rich.progress import Progress

from okng.training import progress


def test_time_left_counts_what_was_done_now_not_before_a_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.Narrator() as tell:
        tell.begin("training", total=1000, done=900)
        now = 4.0
        tell.advance(8)  # too soon for a line
        now = 15.0
        tell.advance(22, "epoch 5/5")
    assert capsys.readouterr().err == "training: 93%, 35 s left, epoch 5/5\n"


def test_a_terminal_shows_the_present_stretch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or after many stretches theirs would fill the screen."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.Narrator() as tell:
        for name in ("memory", "coreset", "calibration"):
            tell.begin(name, total=10)
        assert tell._bar is not None and [task.description for task in tell._bar.tasks] == ["calibration"]


def test_a_terminal_says_which_of_two_times_is_left() -> None:
    """It read "0:00:01 left 0:00:52", as if one second were left."""
    now = 0.0
    bar = Progress(progress.Times(), get_time=lambda: now)
    bar.add_task("training", total=10)
    assert progress.Times().render(bar.tasks[0]).plain == "0:00:00, -:--:-- left"
    now = 1.0
    bar.advance(bar.tasks[0].id, 1)
    now = 2.0
    bar.advance(bar.tasks[0].id, 1)
    assert progress.Times().render(bar.tasks[0]).plain == "0:00:02, 0:00:08 left"


def test_long_work_is_told_of_after_five_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for each stretch, not of what takes less than ten minutes, and not by what only its first step took."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.Narrator() as tell:
        tell.hint = "; --budget cpu takes less"
        for name, seconds_each in (("short", 0.5), ("long", 12.0)):
            tell.begin(name, total=1000)
            for step in range(3 if name == "long" else 12):
                now += seconds_each if step else 7.0
                tell.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "takes about" in line] == [
        "long takes about 3.3 h on this machine; --budget cpu takes less"
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (2e5, "2.3 days")],
)
def test_durations_in_the_unit_of_a_person(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
