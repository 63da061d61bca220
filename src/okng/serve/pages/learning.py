"""The learn page: false alarms to learn, the work in the background, versions and how they compare."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from okng.serve.pages.words import Translate, words
from okng.store.jobs import Job
from okng.store.models import Version

SHOWN = 60  # false alarms that are offered at once


@dataclass(frozen=True)
class Work:
    """A job as it is shown; `percent` is None where nobody knows how much there is to do."""

    id: int
    running: bool
    failed: bool
    what: str
    percent: int | None
    stage: str
    why: str
    version: int | None


def work(job: Job, t: Translate, language: str) -> Work:
    """A job in words."""
    what = {
        "update": t("learn.job_update", n=len(job.asked.get("records", ()))),
        "fit": t("learn.job_fit"),
        "compare": t("learn.job_compare", version=job.asked.get("version", "")),
    }[job.kind]
    phase, share = str(job.told.get("phase", "")), job.told.get("share")
    known = words(language).get(f"learn.phase_{phase}", phase)
    return Work(
        id=job.id,
        running=job.state == "running",
        failed=job.state in ("failed", "stopped"),
        what=what,
        percent=None if share is None else round(100 * share),
        stage=known,
        why=str(job.told.get("why", "")),
        version=job.told.get("version") or job.asked.get("version"),
    )


@dataclass(frozen=True)
class Comparison:
    """Counts (by the old version, by the new one) of reviewed images that are kept; those just learnt stand apart.

    `others` are false alarms among images that were not learnt, `learnt` among those that were.
    """

    old: int
    new: int
    n: int
    ok: int
    ng: int
    others: tuple[int, int]
    learnt: tuple[int, int]
    learnt_n: int
    caught: tuple[int, int]
    missed: tuple[int, int]


def comparison(told: dict[str, Any]) -> Comparison:
    """What `serve/learning.py` counted, as the table has it."""
    ok, ng, learnt = told["counts"]["OK"], told["counts"]["NG"], told["learnt"]

    def called(counts: dict[str, int], verdict: str) -> tuple[int, int]:
        """How many the old version and the new one give this verdict."""
        return (
            sum(count for which, count in counts.items() if which.startswith(verdict)),
            sum(count for which, count in counts.items() if which.endswith(verdict)),
        )

    learnt_n = sum(learnt.values())
    return Comparison(
        old=told["old"], new=told["new"], n=told["images"], ok=sum(ok.values()) + learnt_n, ng=sum(ng.values()),
        others=called(ok, "NG"), learnt=called(learnt, "NG"), learnt_n=learnt_n, caught=called(ng, "NG"),
        missed=called(ng, "OK"),
    )  # fmt: skip


@dataclass(frozen=True)
class VersionShown:
    """A row of the table of versions.

    `known`: whether it was active once, and so can be taken at once; `compared`: whether with the one in use.
    """

    version: int
    current: bool
    known: bool
    compared: bool
    when: str
    how: str


def versions(
    found: list[Version], active: int, before: set[int], compared: set[int], t: Translate
) -> list[VersionShown]:
    """The newest first."""
    return [
        VersionShown(
            version=one.version,
            current=one.version == active,
            known=one.version in before,
            compared=one.version in compared,
            when=datetime.datetime.fromtimestamp(one.at).strftime("%Y-%m-%d %H:%M"),
            how=how(one.why, t),
        )
        for one in reversed(found)
    ]


def how(why: str, t: Translate) -> str:
    """How a version was made, in the page's language where the store's words are known ones."""
    known = {
        "given when the server was started": "learn.how_start",
        "its file was replaced": "learn.how_replaced",
        "uploaded": "learn.how_uploaded",
        "regions and rules": "learn.how_rules",
    }
    if why in known:
        return t(known[why])
    number, _, rest = why.partition(" ")
    if rest in ("false alarm learnt", "false alarms learnt"):
        return t("learn.how_update", n=number)
    for start, key in (
        ("threshold ", "learn.how_threshold"),
        ("false-alarm rate ", "learn.how_rate"),
        ("fitted anew on ", "learn.how_fit"),
    ):
        if why.startswith(start):
            return t(key, value=why.removeprefix(start))
    return why
