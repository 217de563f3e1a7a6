"""The pictures of docs/how-to/use-the-console.md: `python -m tests.house.screenshots` takes them
anew, of a site in the sandbox."""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from PIL import Image

from application.tokens import CreateToken, create_token
from tests.interfaces.browser import chromium, listening, visiting
from tests.world import TEMPLATE, World

PICTURES = Path(__file__).resolve().parents[2] / "docs/how-to/pictures"
SIZE = {"width": 1180, "height": 760}

COLOURS = 64
"""Of a picture: text in few colours, so that it stays small."""

SHOTS = (
    ("fleet-light", "light", "/console"),
    ("fleet-dark", "dark", "/console"),
    ("time-light", "light", "/console/past?at={middle}"),
    ("time-dark", "dark", "/console/past?at={middle}"),
)


def main() -> int:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        templates = [TEMPLATE, {**TEMPLATE, "templateId": "Render-B", "vmType": "c6i.large"}]
        world = World(Path(directory) / "site", templates, boot_time=20.0, shutdown_time=15.0)
        try:
            _live(world)
            token = _token(world)
            world.environ["HOSTLEDGER_WORKER__MODE"] = "inline"  # its worker has another clock
            middle = world.query("SELECT max(position) * 2 / 3 FROM events")[0][0]
            with listening(world) as address, chromium() as browser:
                for name, scheme, path in SHOTS:
                    with visiting(browser, address, color_scheme=scheme, viewport=SIZE) as visit:
                        visit.log_in(token)
                        visit.go(path.format(middle=middle))
                        _keep(visit.page.screenshot(), PICTURES / f"{name}.png")
        finally:
            world.close()
    return 0


def _live(world: World) -> None:
    """A day at work: machines of two templates, some returned, more asked for."""
    world.start_worker()
    world.fulfilled(12)
    rendering = world.request(8, "Render-B")
    machines = world.run_until_final(rendering)["machines"]
    world.run_until_final(world.give_back(machines[:3]))
    world.request(5)
    world.run(3)
    world.request(2, "Render-B")


def _token(world: World) -> str:
    command = CreateToken("Ada's browser", "operator", "", b"\5" * 32, b"\6" * 16)
    with closing(world.storage().event_store(world.clock, {"user": "ada"})) as store:
        create_token(command, store)
    return command.token


def _keep(picture: bytes, path: Path) -> None:
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS)
    image.save(path, optimize=True)
    print(f"written: {path.name}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
