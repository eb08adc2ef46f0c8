"""All commands together, and what becomes of an error."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from rfsearch import __version__, account, interrupt
from rfsearch.cli.compare import compare
from rfsearch.cli.doctor import doctor
from rfsearch.cli.export import export
from rfsearch.cli.listing import list_names
from rfsearch.cli.plan import plan
from rfsearch.cli.report import report
from rfsearch.cli.reproduce import reproduce
from rfsearch.cli.rf import rf
from rfsearch.cli.run import resume, run
from rfsearch.cli.sites import sites
from rfsearch.errors import RequestError
from rfsearch.interrupt import Interrupted
from rfsearch.printing import err_console, out_console, say

_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


class _Commands(TyperGroup):
    """Hold the commands, and refuse completion for a shell that has none."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Check the shell before its completion is made."""
        if args and args[0] in ("--install-completion", "--show-completion"):
            _require_shell(args[0])
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command, name in (
    (run, "run"),
    (plan, "plan"),
    (resume, "resume"),
    (reproduce, "reproduce"),
    (report, "report"),
    (compare, "compare"),
    (list_names, "list"),
    (doctor, "doctor"),
    (rf, "rf"),
    (sites, "sites"),
    (export, "export"),
):
    app.command(name)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rfsearch {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search the receptive field of a network, on equal, metered budgets."""


def _require_shell(option: str) -> None:
    """Raise RequestError where the shell that calls has no completion, or none calls."""
    import shellingham

    try:
        shell = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        shell = ""
    if shell not in _SHELLS:
        got = f"{shell}, which has none" if shell else "a shell that is not recognised"
        raise RequestError(f"{option} is for {', '.join(_SHELLS[:-1])}. Got {got}.")


def main() -> None:
    """Run the command line: a wrong request is one message on standard error and exit code 2, never a traceback."""
    os.environ.update(account.stand_ins())
    with interrupt.handlers_restored():
        interrupt.install()
        try:
            # Help is folded at the width of a terminal, and not at all elsewhere.
            width = None if out_console.is_terminal else out_console.width
            app(prog_name="rfsearch", terminal_width=width)
        except (RequestError, OSError) as error:
            say(str(error), err_console, style="red", unbroken=True)
            sys.exit(2)
        except Interrupted as stop:
            say(str(stop), err_console, unbroken=True)
            sys.exit(130)
