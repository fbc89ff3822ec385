"""Every error that cutlayer raises on purpose, one tree.

::

    CutlayerError
    ├── GraphError           the split graph contradicts itself
    │   └── CutError         this module cannot be cut there; names the nearest cut that works
    ├── ProgramError         the order of work is wrong (missing send, deadlock, use before make)
    ├── DataError            records are missing, malformed, duplicated or of the wrong type
    │   └── AlignmentError   the parties' ids do not match
    ├── NumericsError        NaN or infinity in data, activations, gradients or a loss
    ├── FrameError           bytes that are not a valid frame
    ├── TransportError       a frame could not be delivered
    │   ├── PeerTimeout      a party did not answer in time
    │   └── RestartError     somebody restarted: all go on from the last common snapshot
    ├── IdentityError        a key or certificate is missing, expired, revoked, foreign or somebody else's
    ├── StudyError           settings of a study contradict each other or are unknown
    ├── LogError             a run log cannot be read or written
    ├── AlarmError           what a party received is not what an honest party sends
    └── ConsentError         something was asked that not every party has agreed to

A message says who, where, what came, what was expected and what to do:

>>> print(NumericsError("the activation holds NaN", party="client-3", cut="head->server", step=120,
...                     todo="lower the learning rate"))
client-3, cut head->server, step 120: the activation holds NaN; lower the learning rate
"""

from __future__ import annotations


class CutlayerError(Exception):
    """Base of every error raised by cutlayer on purpose.

    Args:
        what: What went wrong, in words.
        party: Name of the party where it was noticed.
        cut: Name of the cut, or another place in the graph, that it concerns.
        step: The step of the program at which it was noticed.
        got: What came.
        expected: What should have come.
        todo: What the reader can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        party: str | None = None,
        cut: str | None = None,
        step: int | None = None,
        got: str | None = None,
        expected: str | None = None,
        todo: str | None = None,
    ) -> None:
        self.what, self.party, self.cut, self.step = what, party, cut, step
        self.got, self.expected, self.todo = got, expected, todo
        self.sender: str | None = None
        """The other party, where what that one sent is the cause."""
        super().__init__(self._message())

    def _message(self) -> str:
        where = [
            text
            for text in (
                self.party,
                f"cut {self.cut}" if self.cut is not None else None,
                f"step {self.step}" if self.step is not None else None,
            )
            if text
        ]
        message = f"{', '.join(where)}: {self.what}" if where else self.what
        if self.got is not None:
            message += f"; got {self.got}"
        if self.expected is not None:
            message += f"; expected {self.expected}"
        if self.todo is not None:
            message += f"; {self.todo}"
        return message


class GraphError(CutlayerError):
    """The split graph contradicts itself."""


class CutError(GraphError):
    """A module cannot be cut at the place asked for."""


class ProgramError(CutlayerError):
    """The order of work is wrong: a receive without its send, use before make, a deadlock."""


class DataError(CutlayerError):
    """Records are missing, malformed, duplicated or of the wrong type."""


class AlignmentError(DataError):
    """The parties' record ids do not match."""


class NumericsError(CutlayerError):
    """NaN or infinity in data, activations, gradients or a loss."""


class FrameError(CutlayerError):
    """Bytes that are not a valid frame, or not the frame that was due."""


class TransportError(CutlayerError):
    """A frame could not be delivered."""


class PeerTimeout(TransportError):
    """A party did not answer within the time allowed."""


class RestartError(TransportError):
    """The parties are called together: somebody restarted, so all go on from their last common snapshot."""


class IdentityError(CutlayerError):
    """A key or certificate is missing, expired, revoked, of another study, or somebody else's."""


class StudyError(CutlayerError):
    """Settings of a study are unknown or contradict each other."""


class LogError(CutlayerError):
    """A run log cannot be read or written."""


class ConsentError(CutlayerError):
    """Something was asked that not every party has agreed to."""


def nearest(name: str, known: list[str] | tuple[str, ...] | set[str]) -> str:
    """Return advice that names the known word nearest to ``name``, for the end of a message.

    >>> nearest("epoch", ["epochs", "seed"])
    "did you mean 'epochs'?"
    >>> nearest("Sgd", ["Adam", "SGD"])
    "did you mean 'SGD'?"
    """
    import difflib

    lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    return "known: " + ", ".join(sorted(known)) if known else "nothing is known here"


class AlarmError(CutlayerError):
    """What a party received is not what an honest party sends; it stops its part of the training."""
