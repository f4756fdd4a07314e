"""Image-build time only: installs ComfyUI and the trainer, fetches pinned models."""
