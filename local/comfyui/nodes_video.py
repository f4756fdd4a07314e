"""Nodes that make videos."""

from collections.abc import Mapping
from typing import Final
from local.comfyui.node import NodeFunction

NODES: Final[Mapping[str, NodeFunction]] = {}
