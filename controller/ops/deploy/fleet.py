"""Several boxes, one after the other, until the first failure."""

from collections.abc import Callable, Sequence

from rich.markup import escape

from controller.errors import WindlassError
from controller.ops.deploy.inventory import say_done
from controller.ops.deploy.link import Link
from controller.ops.steps import console


def each(names: Sequence[str], act: Callable[[Link], None], *, link: Callable[[str], Link]) -> None:
    """
    Connect to every box and *act* on it.

    Raises:
        WindlassError: the first failure, after what was done and what was not touched has been said.

    """
    for place, name in enumerate(names):
        if len(names) > 1:
            console.print(f"[bold]{escape(name)}[/] [dim]({place + 1} of {len(names)})[/]", markup=True)
        try:
            with link(name) as connected:
                act(connected)
        except (WindlassError, OSError, KeyboardInterrupt):
            if len(names) > 1:
                console.print(say_done(names[:place], name, names[place + 1 :]), style="yellow", markup=False)
            raise
