"""The command line. Each verb is a file, imported only when its code runs, so that `--help` is quick."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from okng.cli import (
    compare,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    inspect,
    list_,
    outbox,
    project,
    rank,
    reproduce,
    rules,
    sensitivity,
    serve,
    threshold,
    train,
    watch,
    weights,
)
from okng.cli.common import say
from okng.errors import OkngError, OkngWarning, broken_package, missing_package, nearest_names

UsageProblem: Any = typer.BadParameter.__mro__[2]  # ClickException, wherever this version of typer keeps its click

STANDARD_OUTPUT = "standard output"
SAID_ELSEWHERE = {
    "predict": "inspect", "detect": "inspect", "infer": "inspect", "score": "inspect", "run": "inspect",
    "test": "evaluate", "val": "evaluate", "validate": "evaluate", "eval": "evaluate", "benchmark": "evaluate",
    "fit": "train", "learn": "train", "convert": "export", "models": "list", "calibrate": "threshold",
    "zones": "rules", "roi": "rules", "mask": "rules", "server": "serve",
}  # fmt: skip


class Verbs(typer.core.TyperGroup):
    """The verbs; a word that other tools use for one of them is answered with ours."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that `args` begin with; the error names the one that is meant."""
        word = args[0]
        if not word.startswith("-") and word not in self.commands:
            meant = SAID_ELSEWHERE.get(word.lower())
            said = f"it is called: okng {meant}" if meant else nearest_names(word, self.commands)
            raise OkngError(f"there is no verb {word!r}; {said}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="okng",
    cls=Verbs,
    help="Learn what OK looks like. Find what is NG.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("inspect")(inspect.inspect)
app.command("watch")(watch.watch)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("rank")(rank.rank)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("threshold")(threshold.threshold)
app.command("rules")(rules.rules)
app.command("serve")(serve.serve)
app.command("outbox")(outbox.outbox)
app.command("reproduce")(reproduce.reproduce)
app.command("list")(list_.list_)
app.command("weights")(weights.weights)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _begin(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="Defaults of options, a table for each verb. Default: okng.toml, where it is.")
    ] = None,
) -> None:
    if version:
        from okng import __version__

        print(__version__)
        raise typer.Exit
    file = project.file_of(config)
    if file is not None:
        ctx.default_map = project.defaults(file, ctx.command.commands, config is not None)  # type: ignore[attr-defined]
        if given := ctx.default_map.get(ctx.invoked_subcommand or ""):
            say(f"{file}: {', '.join(f'{name} {value}' for name, value in given.items())}")


def main() -> None:
    """Run `okng`; a person's mistake is one line on standard error and exit code 1, Ctrl-C is 130."""
    # OpenMP threads that spin while they wait make torch fifty times slower on a processor that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, _interrupt)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as `>&-` does; lines for the person would go where results do
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115, until the program ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may have letters that it can't show
    _name_errors(sys.stdout)
    warnings.showwarning = _show_warning
    code = 1
    try:
        arguments = [_at_home(argument) for argument in sys.argv[1:]]
        result = app(arguments, prog_name="okng", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == 130:  # newer versions of typer turn Ctrl-C into this code, older ones into Abort
            raise KeyboardInterrupt
        sys.stdout.flush()
    except OkngError as error:
        print(f"okng: {error}", file=sys.stderr)
    except (ImportError, RuntimeError) as error:
        found = missing_package(error) if isinstance(error, ModuleNotFoundError) else broken_package(error)
        if found is None:
            raise
        print(f"okng: {found}", file=sys.stderr)
    except (KeyboardInterrupt, typer.Abort):
        print("okng: stopped; nothing is left half-written", file=sys.stderr)
        code = 130
    except UsageProblem as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        _drop_output()
    except OSError as error:
        of_output = _unwritable(error) if error.filename == STANDARD_OUTPUT else _unwritten()
        print(f"okng: {of_output or error}", file=sys.stderr)
        code = 1  # it may be the last flush that failed
    _unwritten()
    sys.exit(code)


def _name_errors(stream: Any) -> None:
    """An error of `stream.write` has the name of standard output: errors of files that are open have none either."""
    write = stream.write

    def named(text: str) -> Any:
        try:
            return write(text)
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise

    stream.write = named


def _unwritable(error: OSError) -> str:
    return f"{STANDARD_OUTPUT} can't be written: {error.strerror or error}"


def _unwritten() -> str:
    """Why standard output can't be written, "" if it can. What is left in its buffer would fail again at the exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_output()
        return _unwritable(error)
    return ""


def _drop_output() -> None:
    """What is left in the buffer of standard output is written nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, frame: object) -> None:
    """Being asked to end, as by a system that shuts down, is like Ctrl-C."""
    raise KeyboardInterrupt


def _at_home(argument: str) -> str:
    """The argument with ~ as the home folder; the shell leaves it in --report=~/r, and in a script's list."""
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return option + equals + os.path.expanduser(value)  # noqa: PTH111, a path would lose its last slash


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Warnings of okng are a line for the person; any other keeps the form that programmers know."""
    if issubclass(category, OkngWarning):
        print(f"okng: {message}", file=sys.stderr, flush=True)
    else:
        _show_others(message, category, *where, **more)


_show_others = warnings.showwarning
