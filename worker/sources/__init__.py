"""Bytes that a job brings: by public URL, as base64, or by a key of our bucket."""

from worker.sources.reader import SourceOptions, SourceReader

__all__ = ["SourceOptions", "SourceReader"]
