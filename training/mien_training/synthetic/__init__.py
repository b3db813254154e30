"""Synthetic heads with exact motion: rendered people of the ICT face model, and drawn characters.

Labels follow mien_landmarks.geometry, which is installed beside this package without its own dependencies
(pip install --no-deps -e tools/landmarks): only its arithmetic is used here.
"""
