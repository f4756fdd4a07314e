"""What image and video jobs share: casting, binding, running, delivering, the manifest."""
