"""Likeness as a number: faces found and described by a child process, compared by pure code."""
