"""Commands for the real charts of helm-releases/. FOLDER is outside of the repository.

python -m ops.charts pull FOLDER   download the charts in the versions of helm-releases/
python -m ops.charts keys FOLDER   record the value keys of the charts in ops/validate/chart-keys
python -m ops.charts test FOLDER   render the charts with our values: every object is valid, every value has an effect
"""

import sys
from pathlib import Path

from ops import platform
from ops.charts import effects, source, value_keys
from ops.command import ROOT, Unusable, command_line, show
from ops.tools import built
from ops.validate.tree import render

PULL_TIMEOUT_S = 120


def pull(folder: Path) -> None:
    """Download the archive of each chart into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = [each.body for each in render(ROOT, ["helm-releases"]).objects()]
    for release in platform.releases(bodies):
        print(" ".join(release.chart))
        show(built("helm"), "pull", *release.chart, f"--destination={folder}", timeout_s=PULL_TIMEOUT_S)


def record(folder: Path) -> None:
    """Record the value keys of each chart."""
    with source.charts(folder) as charts:
        for chart in charts.values():
            print(f"wrote {value_keys.write(chart)}")


def test(folder: Path) -> None:
    """Check each set of values, and print the results. Raises Unusable if there is a fault."""
    with source.charts(folder) as charts:
        bases: dict[str, effects.Result] = {}
        results, listed, faults = [], effects.reasons(), 0
        for values in effects.value_sets(charts):
            result = effects.check(values)
            base = bases.setdefault(values.chart.name, result)
            results.append((result, base))
            lines = list(result.report(base, listed.get(values.chart.name, {})))
            print("\n".join(lines), flush=True)
            faults += len(lines) - 1
        for line in effects.unused(results, listed):
            print(line, flush=True)
            faults += 1
    if faults:
        raise Unusable(f"{faults} faults, see above.")
    print("Every value has an effect, is the chart's default, or is listed with a reason.")


def main() -> None:
    """Run the subcommand `pull`, `keys` or `test`. Raises Unusable if FOLDER is missing or inside the repository."""
    verb, name = sys.argv[1], sys.argv[2] if sys.argv[2:] else ""
    folder = Path(name).resolve()
    if not name or folder.is_relative_to(ROOT):
        raise Unusable("Name a folder for the charts by CHARTS=..., outside of this repository.")
    {"pull": pull, "keys": record, "test": test}[verb](folder)


if __name__ == "__main__":
    command_line(main)
