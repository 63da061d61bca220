"""One command as several processes on this machine, which torchrun's variables join; they end together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LAUNCHED = "OKNG_LAUNCHED"
GONE = 75  # the exit code of a process that another one's end has ended: there is no more to say
KILLED = -9  # by SIGKILL, which Windows has no name for
GRACE, LOOK = 5.0, 0.1  # seconds until a process that was left alone is ended, and between two looks


def launch(command: Sequence[str], count: int) -> int:
    """Run `command` as `count` processes and return their exit code; the first one speaks, and for the others we do.

    Whichever fails ends all. Ctrl-C is 130.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    threads = str(max(1, (os.cpu_count() or 1) // count))
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="okng-ranks-") as folder:
        said = [Path(folder) / str(rank) for rank in range(count)]
        try:
            for rank in range(count):
                told = {
                    "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "GROUP_RANK": "0",
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, LAUNCHED: "1",
                }  # fmt: skip
                environment = {"OMP_NUM_THREADS": threads, **os.environ, **told}
                with said[rank].open("wb") as lines:
                    own = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": lines}
                    processes.append(subprocess.Popen([*command], env=environment, **own))  # type: ignore[call-overload]
            while not any(process.poll() for process in processes) and None in [p.returncode for p in processes]:
                time.sleep(LOOK)
            first = {rank for rank, process in enumerate(processes) if process.poll()}
            _wait(processes)
            ended = [process.poll() for process in processes]  # those still waiting are killed here, by none else
        except KeyboardInterrupt:
            for process in processes:
                process.terminate()
            _wait(processes)
            return 130
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return _concluded([GONE if code is None else code for code in ended], first, said)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended, but no longer than `GRACE`."""
    end = time.monotonic() + GRACE
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(LOOK)


def _concluded(codes: Sequence[int], first: set[int], said: Sequence[Path]) -> int:
    """The exit code of all, and a line for the process that has failed unless it is number 1, who has spoken.

    It is one of the `first` that ended so, for the others' errors may come of it; of several one that was killed.
    """
    failed = [rank for rank, code in enumerate(codes) if code not in (0, GONE)]
    if not failed:
        if any(codes):
            print("okng: the processes of this fit lost each other; --resume goes on with it", file=sys.stderr)
        return int(any(codes))
    rank = min(failed, key=lambda rank: (rank not in first, codes[rank] != KILLED, rank))
    code = codes[rank]
    if code < 0:
        line = f"okng: process {rank + 1} of {len(codes)} was killed by signal {-code}; --resume goes on with the fit"
        print(line, file=sys.stderr)
    elif rank:
        lines = said[rank].read_text(errors="replace").strip().splitlines()
        print(
            next((line for line in reversed(lines) if line.startswith("okng: ")), lines[-1] if lines else ""),
            file=sys.stderr,
        )
    return code if code > 0 else 1
