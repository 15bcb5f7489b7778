"""The stand-in charts, packed as `helm package` packs them, with the images' tags and what is made for them."""

import shutil
import tempfile
from pathlib import Path

from deploy.run import ROOT, output
from deploy.tools import built
from deploy.validate import controller as keys
from tests.e2e.platform import controller, images, keda
from tests.e2e.platform.controller import settings

FOLDER = Path(__file__).parent
TIMEOUT_S = 60
# The stand-in controller and what it imports. A ConfigMap's keys have no slash: -- is one.
CONTROLLER = [*sorted(Path(controller.__file__).parent.glob("*.py")), Path(keys.__file__), settings.RECORD]


def package(folder: Path) -> list[Path]:
    """Pack all of them into a folder; the archives."""
    folder.mkdir(parents=True, exist_ok=True)
    program = {str(path.relative_to(ROOT)).replace("/", "--"): path.read_text() for path in CONTROLLER}
    return [
        _packed("rabbitmq", images.tag(), {}, folder),
        _packed("redis", images.tag(), {}, folder),
        _packed("nginx-ingress", images.tag(), program, folder),
        _packed("keda", keda.tag(), {"keda.yaml": keda.manifests()}, folder),
    ]


def _packed(name: str, tag: str, files: dict[str, str], folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as temporary:
        chart = Path(temporary) / name
        shutil.copytree(FOLDER / "charts" / name, chart)
        for file, text in files.items():
            (chart / "files").mkdir(exist_ok=True)
            (chart / "files" / file).write_text(text)
        options = (f"--app-version={tag}", f"--destination={folder}")
        said = output(built("helm"), "package", chart, *options, timeout_s=TIMEOUT_S)
    return Path(said.strip().rpartition(" ")[2])
