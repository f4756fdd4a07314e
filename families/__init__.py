"""Base models as folders (`family.toml`, `modules.json`) and the pure code that reads them."""
