"""From photos to a verified LoRA: dataset, captions, engines, checks, report."""
