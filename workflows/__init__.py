"""Workflows as folders (`graph.json` and `workflow.toml`) and the pure code that binds them."""
