"""What encoded pictures are made of: Annex B, media time, the frame trace. Pure."""
