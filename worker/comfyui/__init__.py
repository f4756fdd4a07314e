"""The ComfyUI that this worker owns: its process, and the conversation with it."""
