"""An honest stand-in for ComfyUI 0.33: same protocol, same refusals, same files; no model, no GPU.

It listens like ComfyUI, checks graphs against the same node specs, sends the same events in the
same order, keeps the same history and cache, and writes real PNG, MP4, WebM and WebP files. What it
cannot do is draw: a picture shows what was asked for and says "stand-in: not a real picture".
Nothing in production falls back to it; it runs only where somebody starts it.
"""

COMFYUI_VERSION = "0.33.0"
"""The ComfyUI whose transcripts and node specs this was built from."""
