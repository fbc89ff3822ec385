from cli_rehearsals import rehearse  # noqa: F401  # a fixture
