"""Everything that runs inside the container."""
