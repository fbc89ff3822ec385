"""``python -m cutlayer.cli`` is the command ``cutlayer``."""

from . import main

main()
