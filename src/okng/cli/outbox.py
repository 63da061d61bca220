"""`okng outbox`: what the store still holds for sinks, to be sent again or dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import print_json, say


def outbox(
    store: Annotated[str, typer.Option(help="A SQLite file, or postgresql://USER@HOST/NAME.")] = "okng.sqlite",
    again: Annotated[str | None, typer.Option(help="Send again what was set aside of this sink.")] = None,
    drop: Annotated[str | None, typer.Option(help="Forget what the store holds for this sink; records stay.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Show which messages wait for which sink, and which were refused and set aside."""
    from okng.errors import OkngError, nearest_names
    from okng.store import Store

    if "://" not in store and not Path(store).is_file():
        raise OkngError(f"there is no store {store}; give --store that of okng watch or okng serve")
    opened = Store.open(store)
    try:
        deliveries = opened.deliveries
        waiting, aside = deliveries.waiting(), deliveries.aside()
        names = sorted({*waiting, *aside})
        for name in (again, drop):
            if name is not None and name not in names:
                raise OkngError(f"the store holds nothing for {name!r}; {nearest_names(name, names)}")
        if again is not None:
            count = deliveries.send_again(again)
            opened.audit.add("command line", "deliveries sent again", sink=again, count=count)
            say(f"{count} messages wait for {again} again; okng watch or okng serve with that sink sends them")
        elif drop is not None:
            count = deliveries.drop(drop)
            opened.audit.add("command line", "deliveries dropped", sink=drop, count=count)
            say(f"{count} messages for {drop} are dropped; their records stay")
        elif as_json:
            kinds = (("waiting", waiting), ("set_aside", aside))
            print_json(
                {
                    name: {kind: {"count": held[name][0], "why": held[name][1]} for kind, held in kinds if name in held}
                    for name in names
                }
            )
        else:
            for name in names:
                for words, held in (("wait", waiting), ("set aside", aside)):
                    count, why = held.get(name, (0, None))
                    print(f"{name}: {count} {words}{f' ({why})' if why else ''}")
            say("next: okng outbox --again SINK or --drop SINK" if names else "nothing waits")
    finally:
        opened.close()
