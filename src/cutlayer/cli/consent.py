"""Before anything moves: a party reads what would leave it, and says yes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ..errors import ConsentError
from ..sessions.approval import SHORTEST, Approvals, code_digest, vouches_for
from ..study_file.code import code_digests
from ..study_file.words import Call
from .screen import console

if TYPE_CHECKING:
    from ..study import Study
    from ..study_file import PartyStudy, StudyFile

__all__ = ["agreed", "code_of"]


def agreed(
    file: StudyFile,
    approve: Sequence[str],
    approvals: Approvals,
    build: Callable[[], PartyStudy],
    command: Sequence[str],
) -> tuple[PartyStudy, str]:
    """Return the study as the party has it, once its model code and all else were approved, and a word on that.

    Args:
        file: The study's file.
        approve: What the user said with ``--approve``: the digest of the study, of its model code, or of both.
        approvals: What was approved here before.
        build: Builds the study; the model code is executed.
        command: The command as it was given, without ``--approve``.

    Raises:
        ConsentError: It was not approved.
    """
    code = code_of(file)
    rest = [word for word in approve if not vouches_for(word, code_digest(code)) or not code]
    for_code = len(rest) < len(approve)
    last = approvals.last
    if last is not None and last.code != code and any(vouches_for(word, last.digest) for word in rest):
        raise ConsentError(
            f"the model code is not what was approved on {last.time[:10]} with this digest: nothing was executed",
            got=_listed(code), expected=_listed(last.code),
            todo="see who changed these files, and put them back",
        )  # fmt: skip
    if code and len(rest) > 1:
        raise ConsentError(
            "the model code here is not the one that you approve: nothing was executed",
            got=f"digest {code_digest(code)} of {_listed(code)}", expected=" or ".join(rest),
            todo="ask the study lead which model code is the right one",
        )  # fmt: skip
    if not approvals.covers_code(code) and (for_code or not rest):
        _approve_code(code, approvals, for_code, command)
    found = build()
    if dict(found.study.code) != code:
        raise ConsentError(
            "the model code that was executed is not what was approved",
            party=found.party, got=_listed(found.study.code), expected=_listed(code),
            todo="see who changes these files meanwhile",
        )  # fmt: skip
    return found, _approve_study(found, rest, approvals, command)


def code_of(file: StudyFile) -> dict[str, str]:
    """Return SHA-256 (hex) by name of every file that building the study would execute; none is executed."""
    folder = file.path.parent
    words = {word.rpartition(":")[0] for word in _functions(file.tables.graph) if ":" in word}
    paths = [(folder / word).resolve() for word in sorted(words)]
    return code_digests(folder, [path for path in paths if path.is_file()])


def _functions(value: object) -> list[str]:
    """Return the words for functions in a table."""
    match value:
        case Call():
            return [value.function]
        case BaseModel():
            return [word for name in type(value).model_fields for word in _functions(getattr(value, name))]
        case Mapping():
            return [word for one in value.values() for word in _functions(one)]
        case str() if ".py:" in value:
            return [value]
    return []


def _approve_code(code: Mapping[str, str], approvals: Approvals, given: bool, command: Sequence[str]) -> None:
    listed = "\n".join(f"  {name}  SHA-256 {found}" for name, found in code.items())
    text = (
        f"This study brings model code, which would be executed on this machine with your rights:\n{listed}\n"
    )
    if approvals.last is not None and approvals.last.code != code:
        text = f"The model code is not what was approved on {approvals.last.time[:10]}.\n{text}"
    if given:
        approvals.allow_code(code, "--approve")
        return
    if not _somebody_is_there():
        raise ConsentError(
            f"nobody has approved the model code yet\n\n{text}\nRead these files. To have them executed, and to be "
            f"shown what would leave this party:\n  {_with(command, code_digest(code))}\n"
            "If the study lead has told you the study's digest, approve that instead of this one.",
        )
    _say(text, "Read these files before you go on.")
    if not _yes("Execute them? [y/N] "):
        raise ConsentError("not approved: nothing was executed", todo="read the files, and start again")
    approvals.allow_code(code, "terminal")


def _approve_study(
    found: PartyStudy, approve: Sequence[str], approvals: Approvals, command: Sequence[str]
) -> str:
    study, party = found.study, found.party
    statement = study.disclosure(party, found.network.host)
    if approve:
        if not any(vouches_for(word, study.digest) for word in approve):
            raise ConsentError(
                f"the study here is not the one that you approve{_changed(study, approvals)}",
                party=party, got=f"digest {study.digest}", expected=" or ".join(approve),
                todo="ask the study lead which study file and model code are the right ones",
            )  # fmt: skip
        if not approvals.covers(study, statement):
            approvals.allow(study, statement, "--approve")
        return f"approved by --approve: digest {study.digest[:SHORTEST]}, kept in {approvals.path}"
    last = approvals.last
    if last is not None and approvals.covers(study, statement):
        return f"approved on {last.time[:16].replace('T', ' ')} UTC: digest {study.digest[:SHORTEST]}"
    text = f"{_news(study, approvals)}{statement.rstrip()}\n\n{_parts(study)}"
    if not _somebody_is_there():
        raise ConsentError(
            f"{party}: nobody has approved this study yet{_changed(study, approvals)}\n\n{text}\n\n"
            f"To approve exactly this:\n  {_with(command, *_digests(study))}"
        )
    _say(text, "")
    if not _yes("Approve? [y/N] "):
        raise ConsentError("not approved: nothing has left this machine", party=party)
    approvals.allow(study, statement, "terminal")
    return f"approved: digest {study.digest[:SHORTEST]}, kept in {approvals.path}"


def _parts(study: Study) -> str:
    lines = [
        f"Digest {study.digest}",
        *(f"  {name:<12}{found[:SHORTEST]}" for name, found in study.parts.items()),
    ]
    lines += [f"Model code {name}  SHA-256 {found}" for name, found in study.code.items()]
    return "\n".join(lines)


def _news(study: Study, approvals: Approvals) -> str:
    changed = _changed(study, approvals)
    return f"The study is not the one approved before{changed}.\n\n" if changed else ""


def _changed(study: Study, approvals: Approvals) -> str:
    """Say in which parts the study differs from the one approved before."""
    last, differ = approvals.last, approvals.differences(study)
    if last is None:
        return ""
    if not differ:
        return ": the disclosure statement has other words"
    verb = "differs" if len(differ) == 1 else "differ"
    return f": {', '.join(differ)} {verb} from what was approved on {last.time[:10]}"


def _digests(study: Study) -> list[str]:
    """Return what to approve: the model code, where there is any, so that no other is executed; and the study."""
    return [*([study.parts["model code"]] if study.code else []), study.digest]


def _with(command: Sequence[str], *digests: str) -> str:
    return shlex.join([*command, *(word for digest in digests for word in ("--approve", digest))])


def _listed(code: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {found[:SHORTEST]}" for name, found in sorted(code.items())) or "no files"


def _somebody_is_there() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _yes(question: str) -> bool:
    return console().input(question, markup=False).strip().lower() in ("y", "yes")


def _say(*lines: str) -> None:
    screen = console()
    for line in lines:
        screen.print(line, markup=False, soft_wrap=True)
