"""Draws the bundled avatar: a sculpture of signed distances with hair and lights, in front of a blurred room."""
