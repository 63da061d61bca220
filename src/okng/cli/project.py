"""`okng.toml`: a project's own defaults for options, a table for each verb. The command line goes before it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from okng.errors import OkngError, in_one_line, nearest_names

NAME = "okng.toml"
PATTERN = "group-by"  # where a backslash is none of a path
# Send images away, write over files or let others in: not for whoever put a file into a folder to say.
FAR = ("ray", "to", "force", "host", "add-token", "remove-token", "drop")


def file_of(config: Path | None) -> Path | None:
    """The file that `--config` names, else okng.toml of the working folder where there is one."""
    if config is not None:
        return config
    return Path(NAME) if Path(NAME).is_file() else None


def defaults(file: Path, verbs: Mapping[str, Any], named: bool = True) -> dict[str, dict[str, Any]]:
    """Of each verb that the file has a table for, the values by parameter; `verbs` are the commands by name.

    Keys are options without their dashes, `false-alarm-rate` or `false_alarm_rate`. Raises `OkngError` for a file that
    can't be read, a verb or an option that there is not, and a value that no option takes. `named`: whether a person
    has named the file; one that lies in the working folder says nothing of `FAR`, and nothing that lies elsewhere.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise OkngError(f"{file} can't be read: {error.strerror or error}") from error
    except ValueError as error:  # no TOML, or no text
        raise OkngError(f"{file} is no TOML: {in_one_line(error)}") from error
    found: dict[str, dict[str, Any]] = {}
    for verb, table in tables.items():
        if not isinstance(table, dict):
            raise OkngError(f"{file}: {verb!r} stands outside of a table; put it below the verb, such as [train]")
        if verb not in verbs:
            raise OkngError(f"{file}: there is no verb [{verb}]; {nearest_names(verb, verbs)}")
        options = options_of(verbs[verb])
        found[verb] = {}
        for key, value in table.items():
            option = options.get(key.replace("_", "-"))
            if option is None:
                raise OkngError(f"{file}: {verb} has no option {key!r}; {nearest_names(key, options)}")
            called, each = key.replace("_", "-"), value if isinstance(value, list) else [value]
            far = called in FAR or (called != PATTERN and any(map(leads_out, each)))
            if far and not named:
                raise OkngError(
                    f"{file}: {key} = {value!r} is taken only from a file that you name: okng --config {file} {verb} …"
                )
            if isinstance(value, dict) or isinstance(value, list) != option.multiple:
                form = "a list" if option.multiple else "one value"
                raise OkngError(f"{file}: {key} of [{verb}] is {form}, not {value!r}")
            if isinstance(value, bool) != option.is_flag:
                form = "true or false" if option.is_flag else "no switch"
                raise OkngError(f"{file}: {key} of [{verb}] is {form}, not {value!r}")
            found[verb][option.name] = [at_home(one) for one in value] if option.multiple else at_home(value)
    return found


def options_of(command: Any) -> dict[str, Any]:
    """The options of a verb by their long name without dashes."""
    return {
        spelt.removeprefix("--"): option
        for option in command.params
        if option.param_type_name == "option"
        for spelt in option.opts
        if spelt.startswith("--")
    }


def leads_out(value: Any) -> bool:
    """Whether a text is a URL or a path out of the working folder."""
    if not isinstance(value, str):
        return False
    path = PureWindowsPath(value)  # which knows both slashes
    return "://" in value or value.startswith("~") or bool(path.anchor) or ".." in path.parts


def at_home(value: Any) -> Any:
    """The value with ~ as the home folder, as on the command line."""
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value
