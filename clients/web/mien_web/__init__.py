"""The browser client: static files. The gateway serves them from the folder in MIEN_WEB_ROOT."""

from pathlib import Path

#: The folder with index.html.
ROOT = Path(__file__).parent
