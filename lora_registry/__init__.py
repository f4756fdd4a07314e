"""The registry of characters: JSON documents in the same bucket as their LoRAs."""
