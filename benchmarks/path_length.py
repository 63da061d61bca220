"""Which files of okng one image passes through, from disk to verdict and heatmap, and how long they are.

python benchmarks/path_length.py parts.okng IMAGE
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import okng

HOME = Path(okng.__file__).parent


def main(model: str, image: str) -> None:
    """Trace one inspection and print the files that ran."""
    inspector = okng.load(model)
    list(inspector.inspect(image))  # lazy imports are over
    files: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(HOME)):
            files.add(frame.f_code.co_filename)

    threading.setprofile(note)  # decoding runs in a thread
    sys.setprofile(note)
    (inspection,) = inspector.inspect(image)
    inspection.heatmap()
    sys.setprofile(None)
    threading.setprofile(None)
    total = 0
    for file in sorted(files):
        lines = len(Path(file).read_text(encoding="utf-8").splitlines())
        total += lines
        print(f"{lines:>5}  {Path(file).relative_to(HOME)}")
    print(f"{total:>5}  lines in {len(files)} files; {inspection.verdict}, score {inspection.score:.4g}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
