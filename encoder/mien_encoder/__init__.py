"""The encoder K: from a picture with a face to ten keypoints with their Jacobians, and the face's crop kept steady."""
