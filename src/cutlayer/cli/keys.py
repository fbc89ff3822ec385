"""``cutlayer keys``: a study's authority, the parties' certificates, renewing and revoking them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import IdentityError
from .screen import console

if TYPE_CHECKING:
    from ..keys import Credentials

__all__ = ["keys"]

_HELP = """
Keys and certificates: the parties of a study know each other, nobody else gets in.

\b
The study lead makes the study's authority once, then a certificate for each
party, and gives each party its folder over a safe channel:
    cutlayer keys init --study "heart study"
    cutlayer keys issue server --host study.example.org
    cutlayer keys issue hospital-a

\b
Safer: a party makes its own key, which never leaves it, and sends
keys/hospital-a/request.pem; the lead sends keys/signed/hospital-a back:
    hospital-a$  cutlayer keys request hospital-a
    study-lead$  cutlayer keys sign request.pem --party hospital-a
    hospital-a$  cutlayer keys install reply/

\b
Certificates are short-lived. Look at them, renew them, end them early:
    cutlayer keys show keys/hospital-a
    cutlayer keys renew hospital-a
    cutlayer keys request hospital-a --renew
    cutlayer keys revoke hospital-a --reason "laptop stolen"
    cutlayer keys install revoked.pem --out keys/hospital-b
"""

_KEYS = Path("keys")
_AUTHORITY = _KEYS / "authority"

_Authority = Annotated[Path, typer.Option("--authority", help="The authority's folder.", metavar="DIR")]
_Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="DNS name or IP address at which others reach the party; may be repeated.",
        metavar="NAME",
    ),
]
_Days = Annotated[float, typer.Option(help="How long the certificate holds.", metavar="N")]
_Party = Annotated[str, typer.Argument(help="The party's name, as in the study.", metavar="PARTY")]
_Out = Annotated[
    Path | None, typer.Option("--out", help="The party's folder; keys/PARTY unless given.", metavar="DIR")
]

keys = typer.Typer(name="keys", help=_HELP, no_args_is_help=True, rich_markup_mode="rich")


def _say(*lines: str) -> None:
    screen = console()
    for line in lines:
        screen.print(line, markup=False, soft_wrap=True)


@keys.command(no_args_is_help=True)
def init(
    study: Annotated[str, typer.Option(help="The study's name, for people.", metavar="NAME")],
    folder: Annotated[Path, typer.Argument(help="Where to keep the authority.", metavar="DIR")] = _AUTHORITY,
    days: Annotated[float, typer.Option(help="How long the authority holds.", metavar="N")] = 365,
) -> None:
    """Make the study's certificate authority. Whoever has this folder can issue every name: guard it.

    \b
    cutlayer keys init --study "heart study"
    """  # noqa: D301
    from ..keys import Authority

    made = Authority.create(folder, study, days=days)
    _say(
        f"The authority of {made.study!r} lies in {folder} and holds until {made.until:%Y-%m-%d}.",
        f"Fingerprint: {made.fingerprint}",
        "Keep the folder to yourself, with a backup. Tell the parties the fingerprint over another channel.",
    )


@keys.command(no_args_is_help=True)
def issue(
    party: _Party,
    authority: _Authority = _AUTHORITY,
    out: _Out = None,
    host: _Hosts = None,
    days: _Days = 30,
) -> None:
    """Make a key and a certificate for a party: a folder to be given to it over a safe channel.

    \b
    cutlayer keys issue server --host study.example.org --host 192.0.2.7
    cutlayer keys issue hospital-a
    """  # noqa: D301
    from ..keys import Authority

    folder = out or _KEYS / party
    made = Authority.open(authority).issue(party, folder, hosts=host or (), days=days)
    _say(
        f"Key and certificate of {made.party} lie in {folder} and hold until {made.end[:10]}.",
        f"Fingerprint: {made.fingerprint}",
        f"Give the folder to {made.party} over a safe channel, and delete it here: it holds its private key.",
    )


@keys.command(no_args_is_help=True)
def request(
    party: _Party,
    out: _Out = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="The next key, while the old certificate goes on holding.")
    ] = False,
) -> None:
    """Make one's own key, which never leaves this machine, and a request to send to the study lead.

    \b
    cutlayer keys request hospital-a
    cutlayer keys request hospital-a --renew
    """  # noqa: D301
    from ..keys import make_request, renew_request
    from ..keys.certificates import key_fingerprint
    from ..keys.requests import requested_key

    folder = out or _KEYS / party
    path = renew_request(folder) if renew else make_request(party, folder)
    key = requested_key(path.read_bytes(), party)
    _say(
        f"Send {path} to the study lead; it holds nothing secret.",
        f"Fingerprint of the key: {key_fingerprint(key)}",
        "Tell the lead the fingerprint over another channel. When the answer is there: cutlayer keys install",
    )


@keys.command(no_args_is_help=True)
def sign(
    file: Annotated[Path, typer.Argument(help="The party's request.", metavar="REQUEST.PEM")],
    party: Annotated[
        str, typer.Option(help="Whom you mean to sign; the request must say the same.", metavar="NAME")
    ],
    authority: _Authority = _AUTHORITY,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the answer; keys/signed/NAME unless given.", metavar="DIR"),
    ] = None,
    host: _Hosts = None,
    days: _Days = 30,
    renew: Annotated[
        bool, typer.Option("--renew", help="The party has a certificate that still holds.")
    ] = False,
) -> None:
    """Sign a party's request. Compare the key's fingerprint with the party before sending the answer.

    \b
    cutlayer keys sign request.pem --party hospital-a
    """  # noqa: D301
    from ..keys import Authority
    from ..keys.certificates import key_fingerprint
    from ..keys.files import read_file
    from ..keys.requests import requested_key

    asked = read_file(file, "the request")
    lead = Authority.open(authority)
    certificate = lead.sign(asked, party=party, hosts=host or (), days=days, renew=renew)
    folder = out or _KEYS / "signed" / party
    lead.hand_out(folder, certificate)
    _say(
        f"The answer for {party} lies in {folder}: three files, none of them secret. Send all three.",
        f"Fingerprint of the key: {key_fingerprint(requested_key(asked, party))}",
        "Before sending, compare it with the party over another channel; if it differs, revoke this certificate.",
    )


@keys.command(no_args_is_help=True)
def install(
    answer: Annotated[
        Path, typer.Argument(help="The folder that the lead sent, or a new revoked.pem.", metavar="ANSWER")
    ],
    out: _Out = None,
) -> None:
    """Take the lead's answer, or a new list of revoked certificates, into one's folder, after checking it.

    \b
    cutlayer keys install reply/
    cutlayer keys install revoked.pem --out keys/hospital-a
    """  # noqa: D301
    from ..keys import Credentials
    from ..keys import install as take
    from ..keys.certificates import load_certificate, party_of
    from ..keys.files import AUTHORITY, CERTIFICATE, REVOKED, read_file

    if answer.is_file():
        _install_list(answer, out)
        return
    certificate = read_file(answer / CERTIFICATE, "the certificate")
    authority = read_file(answer / AUTHORITY, "the authority's certificate")
    revoked = read_file(answer / REVOKED, "the list of revoked certificates")
    folder = out or _KEYS / party_of(load_certificate(certificate))
    take(folder, certificate, authority, revoked)
    found = Credentials.load(folder)
    _say(
        f"{folder} speaks for {found.party} in {found.study} until {found.until:%Y-%m-%d}.",
        f"Fingerprint of the authority: {found.authority_fingerprint}",
        "Compare it with the study lead over another channel: it says whom you trust.",
    )


def _install_list(file: Path, folder: Path | None) -> None:
    from ..keys import install_revoked
    from ..keys.files import read_file

    if folder is None:
        raise IdentityError("into which party's folder?", todo="say --out keys/NAME")
    found = install_revoked(folder, read_file(file, "the list of revoked certificates"))
    _say(f"{folder} knows of {len(found.since)} revoked certificate{'s' * (len(found.since) != 1)} now.")


@keys.command(no_args_is_help=True)
def renew(
    party: _Party,
    authority: _Authority = _AUTHORITY,
    out: _Out = None,
    host: _Hosts = None,
    days: _Days = 30,
) -> None:
    """Make a new key and certificate for a party; the old one holds until it ends.

    A party that makes its own key asks instead: cutlayer keys request PARTY --renew.

    \b
    cutlayer keys renew hospital-a
    """  # noqa: D301
    from ..keys import Authority

    folder = out or _KEYS / party
    made = Authority.open(authority).renew(party, folder, hosts=host, days=days)
    _say(
        f"New key and certificate of {made.party} lie in {folder} and hold until {made.end[:10]}.",
        f"Fingerprint: {made.fingerprint}",
    )


@keys.command(no_args_is_help=True)
def revoke(
    party: Annotated[
        str, typer.Argument(help="The party, or the serial number of one certificate.", metavar="PARTY")
    ],
    reason: Annotated[str, typer.Option(help="Why, for your index.", metavar="TEXT")] = "not said",
    authority: _Authority = _AUTHORITY,
) -> None:
    """End certificates before their time. It takes effect where the new revoked.pem is.

    \b
    cutlayer keys revoke hospital-a --reason "laptop stolen"
    """  # noqa: D301
    from ..keys import Authority
    from ..keys.files import REVOKED

    fallen = Authority.open(authority).revoke(party, reason)
    _say(
        *(f"Revoked: {one.party}, serial {one.serial}" for one in fallen),
        f"Send {authority / REVOKED} to every party, the host first; each installs it:",
        "  cutlayer keys install revoked.pem --out keys/NAME",
    )


@keys.command()
def show(
    place: Annotated[
        Path, typer.Argument(help="A folder, a certificate or a request.", metavar="DIR")
    ] = _AUTHORITY,
) -> None:
    """Tell whose keys these are, until when they hold, and their fingerprints.

    For an authority: everything that it has issued.

    \b
    cutlayer keys show
    cutlayer keys show keys/hospital-a
    cutlayer keys show request.pem
    """  # noqa: D301
    from ..keys import Credentials
    from ..keys.files import INDEX

    if place.is_file():
        _show_file(place)
    elif (place / INDEX).exists():
        _show_authority(place)
    elif place.is_dir():
        _show_party(Credentials.read(place))
    else:
        raise IdentityError(f"there is no {place}", todo="name a folder: cutlayer keys show keys/NAME")


def _show_party(found: Credentials) -> None:
    _say(
        f"Party:       {found.party}",
        f"Label:       {found.study}",
        f"Holds until: {found.until:%Y-%m-%d %H:%M} UTC, {found.days_left:.0f} days left",
        f"Fingerprint: {found.fingerprint}",
        f"Authority:   {found.authority_fingerprint}",
    )
    found.verify(found.certificate, party=found.party)


def _show_file(file: Path) -> None:
    from ..keys.certificates import fingerprint, key_fingerprint, load_certificate, party_of
    from ..keys.files import read_file
    from ..keys.requests import requested_key, requested_party

    content = read_file(file, "the certificate or request")
    if b"CERTIFICATE REQUEST" in content:
        party = requested_party(content)
        key = key_fingerprint(requested_key(content, party))
        _say(f"Request for:            {party}", f"Fingerprint of the key: {key}")
        return
    certificate = load_certificate(content, str(file))
    _say(
        f"Certificate of: {party_of(certificate)}",
        f"Holds until:    {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
        f"Fingerprint:    {fingerprint(certificate)}",
    )


def _show_authority(folder: Path) -> None:
    import datetime

    from rich.table import Table
    from rich.text import Text

    from ..keys import Authority

    found = Authority.open(folder)
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    _say(
        f"Authority of: {found.study}",
        f"Holds until:  {found.until:%Y-%m-%d %H:%M} UTC, {(found.until - now) / day:.0f} days left",
        f"Fingerprint:  {found.fingerprint}",
    )
    table = Table()
    for heading in ("party", "until", "state", "serial", "fingerprint"):
        table.add_column(heading, overflow="fold")
    for one in found.issued():
        left = (datetime.datetime.fromisoformat(one.end) - now) / day
        state = f"revoked {one.revoked[:10]}: {one.reason}" if one.revoked else "over"
        state = f"{left:.0f} days left" if one.holds(now) else state
        table.add_row(*map(Text, (one.party, one.end[:10], state, one.serial, one.fingerprint)))
    console().print(table)
