"""`python -m local run` and `python -m local serve`."""

import sys
from pathlib import Path

from local import run, serve

USAGE = """usage: python -m local run [--verbose] [JOB.json] | serve [--workers N] [--port P]

  run    one job (test_input.json) through handler.py, its outputs into out/;
         --verbose shows the handler's log instead of keeping it in out/handler.log
  serve  a RunPod endpoint on this machine, with workers that run until you stop it
"""


def main(argv: list[str]) -> int:
    """Send the command to its module; the exit status."""
    match argv:
        case ["run"]:
            return run.main()
        case ["run", "--verbose"]:
            return run.main(verbose=True)
        case ["run", "--verbose", job]:
            return run.main(Path(job), verbose=True)
        case ["run", job]:
            return run.main(Path(job))
        case ["serve", *rest]:
            return serve.main(rest)
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
