"""Base-model families as folders (`family.toml`, `modules.json`) and the pure code that reads them."""
