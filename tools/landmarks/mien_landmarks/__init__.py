"""Ten keypoints with Jacobians from a face's 478 landmarks: recorded tracks, and a stream for `mien send`."""
