"""Run as sd-scripts' own file of this name is: `python sdxl_train_network.py --option …`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from local.kohya.program import main

if __name__ == "__main__":
    main(sys.argv[1:])
