"""python -m cloudrun.sim FOLDER SSH_PORT [KIND]: be the rehearsal cloud of that folder until SIGTERM."""

import sys
from pathlib import Path

from cloudrun.errors import CloudrunError
from cloudrun.sim.daemon import serve

if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
    except CloudrunError as error:
        sys.exit(f"{error.message}; {error.hint}")
