"""The soak: minutes of mixed jobs on four workers while things break at random around them.

What must hold, whatever broke: every accepted job ends in exactly one final state; every COMPLETED
one has all its objects in the bucket with the stated checksum; every failure has a code that the
fault explains; a worker that nobody kills stays flat in memory and descriptors; in the end no
process and no temporary file is left.
"""
