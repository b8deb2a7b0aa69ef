"""``k12ai token``, ``class`` and ``audit``: who may do what, and who did."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from k12ai.cli.exits import EXIT_USAGE, CommandFailed, server_missing
from k12ai.cli.options import DataDir, Server
from k12ai.cli.words import language
from k12ai.client import Client
from k12ai.people import ROLES, Role, TokenRequest
from k12ai.texts import Text

token = typer.Typer(help="See, make and revoke the tokens that say who somebody is.", no_args_is_help=True)
classes = typer.Typer(help="See and make classes: a teacher and students.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(token, name="token")
    app.add_typer(classes, name="class")
    app.command()(audit)


@token.command("create")
def token_create(
    user: Annotated[str, typer.Argument(help="Whose token it is.")],
    role: Annotated[str, typer.Option(metavar="student|teacher|admin", help="What it allows.")] = "student",
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long it is valid: 12h, 90d, 20w."),
    ] = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    server: Server = None,
) -> None:
    """Make a token and print it, this once."""
    from k12ai.cli import people as view

    lifetime_s = view.lifetime_s(expires)
    chosen = _role(role)
    if data_dir is not None:
        made = _offline().create(data_dir, TokenRequest(user, chosen, lifetime_s, note))
    else:
        with Client(server, language=language()) as client:
            made = client.access.create_token(user, chosen, expires_in_s=lifetime_s, note=note)
    view.show_new(made, as_json=as_json)


@token.command("list")
def token_list(
    user: Annotated[str | None, typer.Option("--user", "-u", help="Only this user's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    server: Server = None,
) -> None:
    """List tokens, without their secrets."""
    from k12ai.cli import people as view

    if data_dir is not None:
        found = [each for each in _offline().tokens(data_dir) if user in (None, each.user)]
    else:
        with Client(server, language=language()) as client:
            found = list(client.access.tokens(user))
    view.show_tokens(found, as_json=as_json)


@token.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, which 'list' shows.")],
    data_dir: DataDir = None,
    server: Server = None,
) -> None:
    """End a token at once."""
    if data_dir is not None:
        revoked = _offline().revoke(data_dir, token_id)
    else:
        with Client(server, language=language()) as client:
            revoked = client.access.revoke_token(token_id)
    said = Text(f"revoked: {revoked.id} of {revoked.user}", f"已吊销：{revoked.user} 的 {revoked.id}")
    sys.stdout.write(said.pick(language()) + "\n")


@token.command("whoami")
def token_whoami(server: Server = None) -> None:
    """Print who the server takes you for."""
    from k12ai.cli import people as view

    with Client(server, language=language()) as client:
        view.show_me(client.access.me())


@classes.command("set")
def class_set(
    name: Annotated[str, typer.Argument(help="The name of the class, such as 2026-3.")],
    roster: Annotated[Path, typer.Argument(help="CSV with a column 'user' (学号), and perhaps 'name' (姓名).")],
    teacher: Annotated[
        list[str] | None, typer.Option("--teacher", "-t", help="Who may act for the students.")
    ] = None,
    tokens: Annotated[bool, typer.Option(help="Make a token for each student who has none.")] = True,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make a token for each student, and revoke those that were there.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long the tokens are valid: 12h, 90d, 20w.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the tokens into this new file."),
    ] = None,
    server: Server = None,
) -> None:
    """Make a class of a roster, or change who is in it; print the new tokens as CSV, a line a student."""
    from k12ai.cli import people as view
    from k12ai.cli.rosters import read_roster

    lifetime_s = view.lifetime_s(expires)
    students = read_roster(roster)
    with view.new_file(output) as file, Client(server, language=language()) as client:
        made = client.access.set_class(
            name, list(students), teacher or [], tokens=tokens, renew=renew, expires_in_s=lifetime_s
        )
        if tokens or renew:
            view.hand_out(made, students, file)


@classes.command("list")
def class_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: Server = None,
) -> None:
    """List classes."""
    from k12ai.cli import people as view

    with Client(server, language=language()) as client:
        view.show_classes(client.access.classes(), as_json=as_json)


@classes.command("delete")
def class_delete(name: Annotated[str, typer.Argument()], server: Server = None) -> None:
    """Dissolve a class; its students keep their tokens and what is theirs."""
    with Client(server, language=language()) as client:
        client.access.delete_class(name)


def audit(
    user: Annotated[str | None, typer.Option("--user", "-u", help="Only what this user did.")] = None,
    action: Annotated[str | None, typer.Option("--action", "-a", help="Only this, such as task.stop.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 2026-09-01T08:00:00Z.")] = None,
    before: Annotated[int | None, typer.Option(help="Go on from this sequence, towards the past.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: Server = None,
) -> None:
    """Show who did what to what, from where, and what the server answered; newest first."""
    from k12ai.cli import people as view

    with Client(server, language=language()) as client:
        found = client.access.audit(user=user, action=action, since=since, before=before, limit=limit)
    view.show_audit(found, as_json=as_json)


def _role(given: str) -> Role:
    for role in ROLES:
        if given == role:
            return role
    raise CommandFailed(
        EXIT_USAGE,
        Text(
            f"--role {given}: must be one of {', '.join(ROLES)}",
            f"--role {given}：必须是 {', '.join(ROLES)} 之一",
        ),
    )


def _offline() -> ModuleType:
    try:
        from k12ai.cli import offline
    except ModuleNotFoundError as error:
        raise server_missing(error) from None
    return offline
