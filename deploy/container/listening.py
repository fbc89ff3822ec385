"""For a container's health check: exit with 0 if something here takes connections at the port that is given."""

import socket
import sys

try:
    socket.create_connection(("localhost", int(sys.argv[1])), timeout=3).close()
except OSError as error:
    sys.exit(f"nothing listens at port {sys.argv[1]}: {error}")
