"""`python -m mien_generator` runs the generator."""

from mien_generator.app import create_app
from mien_generator.face.build import make_ladders
from mien_generator.processes import device, warm, worker
from mien_generator.settings import GeneratorSettings
from mien_shared import logs
from mien_shared.http.service import serve
from mien_shared.machine import usable_cores

if __name__ == "__main__":
    settings = GeneratorSettings()
    logs.configure("generator", settings.log_level)
    link = warm.start_warm(
        {
            "device": lambda link, _: device.run(link, settings, settings.cores or usable_cores(), make_ladders),
            "worker": lambda link, start: worker.run(link, settings, start),
        }
    )
    serve("generator", create_app(settings, link), settings)
