"""Video: Annex B, media time, the frame trace, a clip's pace and orientation. Pure."""
