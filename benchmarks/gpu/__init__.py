"""What only a GPU tells: speed, memory and prices of the whole worker on the card it runs on.

`python -m benchmarks.gpu --help`; docs/gpu.md says what is measured and how to read it.
"""
