"""`python -m local.comfyui`: start the stand-in with ComfyUI's own options."""

import asyncio
import shutil
import sys
import time
from collections.abc import Sequence

from aiohttp import web

from local.comfyui import COMFYUI_VERSION, nodes
from local.comfyui.catalogue import Catalogue
from local.comfyui.events import Events
from local.comfyui.execution import Engine
from local.comfyui.executor import Executor
from local.comfyui.faults import Faults
from local.comfyui.files import FileRoutes
from local.comfyui.folders import Folders
from local.comfyui.node import ServerContext
from local.comfyui.options import Options, parse
from local.comfyui.picture import Painter
from local.comfyui.png import PngEncoder
from local.comfyui.prompt_routes import PromptRoutes
from local.comfyui.prompts import Prompts
from local.comfyui.server import ServerRoutes, application


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; the exit status."""
    options = parse(sys.argv[1:] if argv is None else argv)
    print(
        f"This is the STAND-IN for ComfyUI {COMFYUI_VERSION}: real protocol, no model, no GPU;"
        " its pictures are placeholders and say so.",
        flush=True,
    )
    faults = Faults(options.faults)
    if faults.due("start_fail"):
        print("RuntimeError: the stand-in was told to fail at its start.", file=sys.stderr)
        return 1
    time.sleep(faults.latency_s("start_delay_s"))
    try:
        asyncio.run(_serve(options, faults))
    except KeyboardInterrupt:
        return 0
    except OSError as error:  # the port is taken
        print(f"Cannot listen: {error}", file=sys.stderr)
    return 1


async def _serve(options: Options, faults: Faults) -> None:
    engine = _engine(options, faults)
    folders = engine.context.folders
    prompts = Prompts(engine.events)
    executor = Executor(engine, prompts)
    routes = {
        **ServerRoutes(engine, prompts).routes(),
        **PromptRoutes(engine, prompts, executor, nodes.own_checks(folders)).routes(),
        **FileRoutes(folders).routes(),
    }
    runner = web.AppRunner(application(engine, routes), access_log=None)
    await runner.setup()
    executor.start()
    # Said before it listens: whoever sees it answer has its whole log.
    print(f"To see the GUI go to: http://{options.host}:{options.port}", flush=True)
    await web.TCPSite(runner, options.host, options.port).start()
    await engine.events.deliver()


def _engine(options: Options, faults: Faults) -> Engine:
    shutil.rmtree(options.temp, ignore_errors=True)  # as ComfyUI does at each start
    folders = Folders(
        models=options.models, output=options.output, input=options.input, temp=options.temp
    )
    for config in options.extra_model_paths:
        folders.add_extra_paths(config)
    context = ServerContext(
        folders=folders,
        faults=faults,
        painter=Painter(options.picture_bytes, options.shown),
        png=PngEncoder(),
        metadata=options.metadata,
    )
    fingerprint = nodes.fingerprint(folders)
    return Engine(Catalogue(folders), nodes.functions(), fingerprint, context, Events())


if __name__ == "__main__":
    sys.exit(main())
