"""ComfyUI: `engine` says what a worker needs of it, `process` runs it, `client` uses it."""
