"""`okng serve`: verdicts over HTTP."""

from __future__ import annotations

import datetime
import errno
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import DEVICE, say
from okng.cli.watch import TO
from okng.errors import OkngError


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Model files; NAME=FILE gives one another name than the file's.")
    ] = None,
    store: Annotated[str, typer.Option(help="A SQLite file, or postgresql://USER@HOST/NAME.")] = "okng.sqlite",
    host: Annotated[
        str, typer.Option(help="The address to listen on. Others than loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    name: Annotated[list[str] | None, typer.Option(help="A name under which browsers ask this server.")] = None,
    folder: Annotated[list[Path] | None, typer.Option(help="A folder whose images may be named by their path.")] = None,
    versions: Annotated[
        Path | None, typer.Option(help="Folder for the models' versions. Default: okng-models beside the store.")
    ] = None,
    keep_images: Annotated[str, typer.Option(help="all, odd (NG and borderline) or none.")] = "odd",
    keep_days: Annotated[float | None, typer.Option(help="Remove records after that. Default: never.")] = None,
    keep_gb: Annotated[float | None, typer.Option(help="Remove the oldest beyond that. Default: never.")] = None,
    to: Annotated[list[str] | None, typer.Option(help=TO)] = None,
    queue: Annotated[int, typer.Option(help="Requests worked on at once; more get 503 and Retry-After.")] = 64,
    max_mb: Annotated[float, typer.Option(help="Of one image file.")] = 32,
    max_megapixels: Annotated[float, typer.Option(help="Of one image.")] = 100,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    engine: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU cores for one image. Default: all.")] = None,
    add_token: Annotated[str | None, typer.Option(help="Make a token of that name, print it, and end.")] = None,
    remove_token: Annotated[str | None, typer.Option(help="Take that token back, and end.")] = None,
    role: Annotated[str, typer.Option(help="Of --add-token: inspect, review or admin.")] = "inspect",
) -> None:
    """Serve models over HTTP: verdicts, reviews, what was inspected; http://127.0.0.1:8000/docs says how."""
    import uvicorn

    from okng.line.sinks import open_sink
    from okng.line.sinks.folders import check_folders
    from okng.serve import Settings, create_app
    from okng.serve.connections import Patient
    from okng.serve.security import safe_host
    from okng.store import Store

    if add_token is None and remove_token is None:
        check_address(host, port)
    sinks = [open_sink(text) for text in to or []]
    check_folders(sinks, "http", there=False, kept=keep_images == "all")
    opened = Store.open(store)
    try:
        if add_token is not None:
            print(opened.accounts.add(add_token, role, "command line"))
            say(f"the token of {add_token} ({role}), shown this once; send it as: Authorization: Bearer TOKEN")
            return
        if remove_token is not None:
            opened.accounts.remove(remove_token, "command line")
            say(f"the token of {remove_token} is worth nothing any more")
            return
        settings = Settings(
            models=(versions or _beside(store)).absolute(),
            folders=tuple(folder or ()),
            names=tuple(name or ()),
            local=safe_host(host, opened),
            keep=keep_images,
            keep_days=keep_days,
            keep_gb=keep_gb,
            queue=queue,
            max_mb=max_mb,
            max_megapixels=max_megapixels,
            engine={"device": device, "engine": engine, "threads": threads},
        )
        app = create_app(opened, _named(models or []), settings, _log, sinks)
        if settings.local and not opened.accounts.any():
            say("no token is needed: whoever uses this machine may do everything here, and nobody else anything")
        say(f"http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it), store {opened.name}")
        config = uvicorn.Config(
            app,
            host,
            port,
            log_level="warning",
            timeout_graceful_shutdown=30,
            timeout_keep_alive=30,
            server_header=False,
            http=Patient,
        )
        server = uvicorn.Server(config)
        try:
            server.run()
        except KeyboardInterrupt:  # uvicorn hands on the signal that it has obeyed
            pass
        except SystemExit as error:
            raise _taken(host, port) from error
        say("stopped; all that was answered is in the store")
    finally:
        opened.close()


def check_address(host: str, port: int) -> None:
    """`OkngError` where nothing can listen on it, before a store is made and a page is named."""
    why: OSError | None = None
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        addresses, why = [], error
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as tried:
                if os.name == "posix":  # as the server does it: what ended just now is no hindrance
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
                return
        except OSError as error:  # a name may have an address of IPv6, too, where there is none
            why = error
            if error.errno == errno.EADDRINUSE:
                break
    if why is not None and why.errno == errno.EADDRINUSE:
        raise _taken(host, port)
    said = why.strerror if why is not None and why.strerror else why
    raise OkngError(f"can't listen on {host}:{port} ({said}); give another --host or --port")


def _taken(host: str, port: int) -> OkngError:
    return OkngError(f"can't listen on {host}:{port}; end what does, or give another --port")


def _named(models: list[str]) -> dict[str, Path]:
    """Files by name, of NAME=FILE or of what a file is called."""
    named: dict[str, Path] = {}
    for given in models:
        name, equals, file = given.partition("=")
        path = Path(file if equals and not Path(given).exists() else given).expanduser()
        name = name if equals and path != Path(given) else path.stem
        if name in named:
            raise OkngError(f"two models are called {name}; give one another name: NAME={path}")
        named[name] = path
    return named


def _beside(store: str) -> Path:
    """Where the versions of the models lie: beside a SQLite file, or here."""
    return (Path() if "://" in store else Path(store).expanduser().parent) / "okng-models"


def _log(line: str) -> None:
    now = datetime.datetime.now().isoformat(" ", "seconds")
    say(f"{now}  {line}")
