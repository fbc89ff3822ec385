"""Real processes of the command line, to which Ctrl-C gets through."""

from cli_rehearsals import rehearse  # noqa: F401  # a fixture

from ctrl_c import ctrl_c  # noqa: F401  # a fixture
