"""The way to a machine: shells, transfer, processes, tunnels."""

import logging

# paramiko logs a traceback for every connection that is refused or reset; what matters of it we raise
logging.getLogger("paramiko").addHandler(logging.NullHandler())
