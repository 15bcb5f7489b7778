"""Packages the stand-in charts with `helm package`, with image tags and generated files."""

import shutil
import tempfile
from pathlib import Path

from minicluster.stand_ins import ingress_controller, keda_release, server_image
from minicluster.stand_ins.ingress_controller import controller_settings
from ops.command import ROOT, output
from ops.tools import built

FOLDER = Path(__file__).parent
TIMEOUT_S = 60
# The program of the ingress controller and the files that it imports or reads.
PROGRAM = [*sorted(Path(ingress_controller.__file__).parent.glob("*.py")), controller_settings.RECORD]


def package(folder: Path) -> list[Path]:
    """Package every chart into a folder, and return the paths of the archives."""
    folder.mkdir(parents=True, exist_ok=True)
    # the program is mounted into its pod from a ConfigMap, whose keys cannot contain slashes
    program = {str(path.relative_to(ROOT)).replace("/", "--"): path.read_text() for path in PROGRAM}
    return [
        _packed("rabbitmq", server_image.tag(), {}, folder),
        _packed("redis", server_image.tag(), {}, folder),
        _packed("nginx-ingress", server_image.tag(), program, folder),
        _packed("keda", keda_release.tag(), {"keda.yaml": keda_release.manifests()}, folder),
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
