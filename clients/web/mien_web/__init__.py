"""The browser client: static files, served by whoever is told where they lie."""

from pathlib import Path

#: The folder of index.html.
ROOT = Path(__file__).parent
