"""What the OpenAPI page says of bodies and answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Said = Literal["OK", "NG", "unknown"]
LARGEST_ID = 2**53 - 1  # up to here every reader of JSON takes a number exactly, and both databases take it


class Problem(BaseModel):
    """What went wrong, in one line."""

    error: str


class Result(BaseModel):
    """One inspection, as it is in the store. Times are UTC; `regions` are in pixels of the original image."""

    id: int
    at: str
    key: str | None
    source: str
    path: str | None
    digest: str
    model: str
    version: int | None
    model_digest: str
    threshold: float
    height: int
    width: int
    score: float
    p_value: float
    verdict: Literal["OK", "NG"]
    review: Said | None
    has_image: bool
    reasons: list[str]
    regions: list[dict[str, Any]]
    timing_ms: dict[str, float]


class Results(BaseModel):
    """A page of results; `cursor` is handed back for the next one, null at the end."""

    results: list[Result]
    cursor: str | None


class Unread(BaseModel):
    """An image of a batch without a result."""

    path: str | None
    error: str


class BatchResults(BaseModel):
    """The results of a batch in the order of its images."""

    results: list[Result | Unread]
    counts: dict[str, int]


class Where(BaseModel):
    """An image below a folder of --folder."""

    path: str = Field(max_length=4096)


class Wheres(BaseModel):
    """Images, or folders of images, below a folder of --folder."""

    paths: list[str] = Field(min_length=1, max_length=1000)


class VersionOfModel(BaseModel):
    """One version of a model."""

    version: int
    digest: str
    at: str
    who: str
    why: str
    active: bool


class ModelServed(BaseModel):
    """A model with its promise."""

    name: str
    version: int
    digest: str
    detector: str
    promise: str
    threshold: float
    false_alarm_rate: float
    basis: str
    held_out: int
    rules: dict[str, Any]
    localizes: bool
    problem: str | None
    versions: list[VersionOfModel]


class Limit(BaseModel):
    """A false-alarm rate or a threshold, one of the two."""

    false_alarm_rate: float | None = Field(None, gt=0, lt=1)
    threshold: float | None = Field(None, ge=-1e300, le=1e300)


class NewRules(BaseModel):
    """Zones and rules; what each may hold says `okng rules`."""

    zones: list[dict[str, Any]] = Field(default_factory=list, max_length=100)
    rules: list[dict[str, Any]] = Field(default_factory=list, max_length=100)


class Promised(BaseModel):
    """What a threshold promises."""

    promise: str
    threshold: float
    false_alarm_rate: float


class Taken(BaseModel):
    """Which version becomes active."""

    version: int = Field(ge=1, le=2**31 - 1)
    why: str = Field("", max_length=500)


class Work(BaseModel):
    """What is to be done in the background.

    `update`: the model learns the images of `records`, false alarms that were reviewed as OK and whose image is kept.
    `fit`: a new model of all images that were reviewed as OK, or of those below `folder`; the `false_alarm_rate` is the
    active one's, and has to be said where its threshold was set by hand. `compare`: `version` with the active one, on
    all reviewed images that are kept.
    """

    kind: Literal["update", "fit", "compare"]
    records: list[int] = Field(default_factory=list, max_length=10_000)
    folder: str | None = Field(None, max_length=4096)
    false_alarm_rate: float | None = Field(None, gt=0, lt=1)
    version: int | None = Field(None, ge=1, le=2**31 - 1)


class JobTold(BaseModel):
    """A job: `told` is how far it is, or what came of it."""

    id: int
    at: str
    who: str
    kind: str
    model: str
    asked: dict[str, Any]
    state: Literal["running", "done", "failed", "stopped"]
    told: dict[str, Any]


class NewReviews(BaseModel):
    """What a person says of records."""

    records: list[int] = Field(min_length=1, max_length=1000)
    said: Said
    note: str = Field("", max_length=2000)


class UndoneReviews(BaseModel):
    """Reviews to take back."""

    reviews: list[int] = Field(min_length=1, max_length=1000)


class ReviewIds(BaseModel):
    """The reviews that were written."""

    reviews: list[int]


class Reviewed(BaseModel):
    """One review, or the undoing of one."""

    id: int
    at: str
    who: str
    said: Said | None
    undoes: int | None
    note: str


class Token(BaseModel):
    """A token, to log a browser in."""

    token: str = Field(max_length=200)


class NewAccount(BaseModel):
    """A name and what it may do."""

    name: str = Field(min_length=1, max_length=100)
    role: Literal["inspect", "review", "admin"]


class AccountTold(NewAccount):
    """An account."""


class NewToken(AccountTold):
    """An account with its token, which is shown this once."""

    token: str


class AuditEntry(BaseModel):
    """Who did what."""

    id: int
    at: str
    who: str
    what: str
    about: dict[str, Any]


class Asking(BaseModel):
    """Who asks, and what they may. `csrf` is what a browser's changes have to bring."""

    name: str
    role: str
    csrf: str


class State(BaseModel):
    """Whether the server can work: "ok", or what is wrong."""

    status: str
    problems: dict[str, str]
