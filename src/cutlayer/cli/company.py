"""All parties of a study as processes on this machine: started, listened to, started again, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ..errors import StudyError

__all__ = ["Audience", "Company", "Member"]

_MOST_RESTARTS = 20
_PATIENCE_S = 15.0
_TOLD_TO_END = 128 + signal.SIGTERM


class Audience(Protocol):
    """Is told what the parties say."""

    def heard(self, member: Member, said: dict[str, Any]) -> None:
        """A party said something."""
        ...

    def note(self, what: str) -> None:
        """A party was started, died, ended."""
        ...


@dataclass
class Member:
    """One party as a process.

    Attributes:
        party: Its name.
        role: Its role.
        words: The command's words, after ``cutlayer``.
        errors: The file that gets what it says on standard error.
        state: In a word, how it is.
        standing: What it said last about where the study stands.
        starts: How often it was started.
    """

    party: str
    role: str
    words: Sequence[str]
    errors: Path
    state: str = "starting"
    standing: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    process: subprocess.Popen[str] | None = None


class Company:
    """Runs the parties until all are done.

    Args:
        members: The parties, the host first.
        audience: Who is told what they say.
        threads: Compute threads of each.
    """

    def __init__(self, members: Sequence[Member], audience: Audience, threads: int) -> None:
        self.members, self._audience, self._threads = members, audience, threads
        self._heard: SimpleQueue[tuple[Member, str | None]] = SimpleQueue()

    def run(self) -> None:
        """Start all and return when all are done; whoever dies by a signal is started again.

        Raises:
            StudyError: A party ended with an error; the others were ended, too.
            KeyboardInterrupt: As it came; all were told to end, and have.
        """
        try:
            for member in self.members:
                self._start(member)
            while any(member.state != "done" for member in self.members):
                try:
                    member, line = self._heard.get(timeout=0.5)
                except Empty:
                    continue
                if line is not None:
                    self._listen(member, line)
                else:
                    self._ended(member)
        finally:
            self._end_all()

    def _start(self, member: Member) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "MKL_NUM_THREADS": str(self._threads),
        }
        member.errors.parent.mkdir(parents=True, exist_ok=True)
        with member.errors.open("a", encoding="utf-8") as errors:
            # A session of its own: Ctrl-C reaches it once, from here.
            member.process = subprocess.Popen(
                [sys.executable, "-m", "cutlayer.cli", *member.words],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
                start_new_session=True,
            )  # fmt: skip
        member.starts, member.state = member.starts + 1, "starting"
        threading.Thread(target=self._read, args=(member, member.process), daemon=True).start()

    def _read(self, member: Member, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._heard.put((member, line))
        process.wait()
        self._heard.put((member, None))

    def _listen(self, member: Member, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            said = {"kind": "note", "text": line.strip()}
        if said.get("kind") == "standing":
            member.standing, member.state = said, "taking part"
        self._audience.heard(member, said)

    def _ended(self, member: Member) -> None:
        process = member.process
        code = process.returncode if process is not None else 0
        if code == 0:
            member.state = "done"
        elif (code < 0 or code == _TOLD_TO_END) and member.starts <= _MOST_RESTARTS:
            number = -code if code < 0 else signal.SIGTERM
            self._audience.note(
                f"!! {member.party} was ended by {signal.Signals(number).name}: it is started again"
            )
            self._start(member)
        else:
            member.state = "failed"
            raise StudyError(
                f"{member.party} ended with an error: {_last_words(member.errors)}",
                todo=f"all that it said is in {member.errors}",
            )

    def _end_all(self) -> None:
        """Tell whoever still runs to end, and see to it that they do."""
        until = time.monotonic() + _PATIENCE_S
        alive = [m.process for m in self.members if m.process is not None and m.process.poll() is None]
        for process in alive:
            process.terminate()  # what a shell starts in the background does not hear SIGINT
        for process in alive:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last_words(path: Path) -> str:
    """Return the error that a party ended with."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text.rpartition("Error: ")[2].strip() or "it said nothing"
