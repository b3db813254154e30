"""`python -m mien_generator` runs the generator."""

from mien_generator.app import create_app
from mien_generator.face.build import make_ladders
from mien_generator.settings import GeneratorSettings
from mien_shared.http.service import serve

if __name__ == "__main__":
    settings = GeneratorSettings()
    serve("generator", create_app(settings, make_ladders), settings)
