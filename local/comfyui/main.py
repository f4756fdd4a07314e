"""Lets a folder with this file pass for a ComfyUI checkout: `python main.py --port …`.

Python puts this file's own folder first on the path, where `server` and `folders` would shadow
other people's modules; the project's root takes its place.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from local.comfyui.__main__ import main

    sys.exit(main())
