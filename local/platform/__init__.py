"""A RunPod emulator: the platform's worker API and its endpoint API, around real SDK processes.

What RunPod documents (docs.runpod.io, "Operation reference", "Send API requests", "Job states") is
emulated as documented; what it does not document follows the worker side of runpod SDK 1.12.0, and
each choice that is only ours says so where it is made. It binds to loopback and accepts any key.
"""
