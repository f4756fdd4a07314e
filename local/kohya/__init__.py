"""A stand-in for sd-scripts: its command line, its files and its bytes, but no training.

`KOHYA_DIR=local/kohya` puts it in the trainer's place. It parses the real parser's options
(`options.json`, listed from sd-scripts v0.10.1), refuses what sd-scripts refuses, is as silent as
sd-scripts about what it only warns of, and says at its start that it is a stand-in.
"""
