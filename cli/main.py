"""`wam`: the command line. Each command is one short file; nothing heavy is imported until it runs."""

import sys

import typer

from cli import (
    adapt,
    base,
    check,
    compare,
    curate,
    doctor,
    eval,
    export,
    ingest,
    pack,
    plan,
    review,
    robot,
    shard,
    show,
    stats,
)
from schemas.errors import WamError

app = typer.Typer(
    name="wam",
    help="From any robot's logs to an adapted World Action Model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("check")(check.check)
app.command("curate")(curate.curate)
app.command("review")(review.review)
app.add_typer(robot.app, name="robot")
app.command("plan")(plan.plan)
app.command("adapt")(adapt.adapt)
app.add_typer(base.app, name="base")
app.command("ingest")(ingest.ingest)
app.add_typer(shard.app, name="shard")
app.command("stats")(stats.stats)
app.command("eval")(eval.evaluate)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("show")(show.show)
app.command("pack")(pack.pack)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run a command; an error the user can mend is one line and exit code 2."""
    try:
        app()
    except WamError as error:
        sys.stderr.write(f"wam: {error}\n")
        sys.exit(2)
    except OSError as error:
        sys.stderr.write(
            f"wam: {error.filename or 'a file'}: {error.strerror or error}. Check the path and the disk.\n"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("wam: stopped. Run the same command again to go on where it stopped.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
