"""Routes about files: looking at outputs, uploading inputs."""

import hashlib
import mimetypes
import os
from pathlib import Path

from aiohttp import web

from local.comfyui.folders import Folders, annotated
from local.comfyui.server import Routes


class FileRoutes:
    """`/view` and `/upload/image`; names that lead out of their folder are refused."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def routes(self) -> Routes:
        """Handlers by method and path."""
        return {("GET", "/view"): self._view, ("POST", "/upload/image"): self._upload}

    async def _view(self, request: web.Request) -> web.StreamResponse:
        wanted = request.query
        if "filename" not in wanted:
            return web.Response(status=404)
        name, named_type = annotated(wanted["filename"])
        folder = self._folders.by_type(named_type or wanted.get("type", "output"))
        if not name or name[0] == "/" or ".." in name or folder is None:
            return web.Response(status=400)
        if "subfolder" in wanted:
            inside = Path(os.path.abspath(folder / wanted["subfolder"]))  # noqa: PTH100 - lexical: ".." may not be followed through links
            if not inside.is_relative_to(folder):
                return web.Response(status=403)
            folder = inside
        path = folder / Path(name).name
        if not path.is_file():
            return web.Response(status=404)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": f'filename="{path.name}"',
            "Content-Type": kind,
        }
        return web.FileResponse(path, headers=headers)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image, folder_type = form.get("image"), str(form.get("type", "input"))
        folder = self._folders.by_type(folder_type)
        if not isinstance(image, web.FileField) or not image.filename or folder is None:
            return web.Response(status=400)
        subfolder = str(form.get("subfolder", ""))
        target = Path(os.path.abspath(folder / os.path.normpath(subfolder) / image.filename))  # noqa: PTH100 - as above
        if not target.is_relative_to(folder):
            return web.Response(status=400)
        target.parent.mkdir(parents=True, exist_ok=True)
        body = image.file.read()
        if form.get("overwrite") not in ("true", "1"):
            target = _free_name(target, body)
        target.write_bytes(body)
        answer = {"name": target.name, "subfolder": subfolder, "type": folder_type}
        return web.json_response(answer)


def _free_name(path: Path, body: bytes) -> Path:
    """`name (1).png` where the name is taken by other bytes."""
    digest, free, number = hashlib.sha256(body).digest(), path, 1
    while free.exists() and hashlib.sha256(free.read_bytes()).digest() != digest:
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
        number += 1
    return free
