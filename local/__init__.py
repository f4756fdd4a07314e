"""The local stack: a real S3 server, stand-ins for ComfyUI and the trainer, a RunPod emulator."""
