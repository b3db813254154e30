"""The encoder K: computes ten keypoints with Jacobians from a picture with a face, and keeps the face's crop steady."""
