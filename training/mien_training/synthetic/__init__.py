"""Synthetic heads with exact motion: rendered people of the ICT face model, and drawn characters.

Labels are computed by mien_landmarks.geometry. That package is installed without its dependencies
(pip install --no-deps -e tools/landmarks), because only its geometry is used here.
"""
