"""What a person decides of a server, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from okng.checks import at_least, positive
from okng.errors import OkngError
from okng.store.pictures import KEEP
from okng.store.retention import check_limits

MB = 1_000_000


@dataclass(frozen=True)
class Settings:
    """How a server behaves.

    `models`: the folder that holds the versions of all models. `folders`: where images named by a path may lie.
    `names`: names under which the server is asked, besides localhost and addresses. `local`: whether it listens on
    loopback alone, where nobody needs a token as long as there is none. `keep`: which images are kept, "all", "odd" or
    "none". `keep_days` and `keep_gb`: how long and how much is kept, None for all. `queue`: requests that may be worked
    on at once; further ones are sent away for a while. `max_mb`: of one image file, `max_megapixels` of one image.
    `engine`: further arguments of `okng.load`.
    """

    models: Path
    folders: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    local: bool = True
    keep: str = "odd"
    keep_days: float | None = None
    keep_gb: float | None = None
    queue: int = 64
    max_mb: float = 32
    max_megapixels: float = 100
    engine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise OkngError(f"images to keep are {', '.join(KEEP)}, not {self.keep!r}")
        at_least(1, queue=self.queue)
        positive(max_mb=self.max_mb, max_megapixels=self.max_megapixels)
        check_limits(self.keep_days, self.keep_gb)
        for folder in self.folders:
            if not folder.is_dir():
                raise OkngError(f"{folder} is no folder; give --folder one that holds images")
