"""`python -m local run` and `python -m local serve`."""

import sys
from pathlib import Path

from local import run, serve

USAGE = """usage: python -m local run [JOB.json] | serve [--workers N] [--port P]

  run    one job (test_input.json) through handler.py, its outputs into out/
  serve  a RunPod endpoint on this machine, with workers that run until you stop it
"""


def main(argv: list[str]) -> int:
    """Send the command to its module; the exit status."""
    match argv:
        case ["run"]:
            return run.main()
        case ["run", job]:
            return run.main(Path(job))
        case ["serve", *rest]:
            return serve.main(rest)
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
