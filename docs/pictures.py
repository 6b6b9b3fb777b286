"""Make the README's picture of the live view from a study's status.

python docs/pictures.py NAME            # writes docs/live.svg of the study NAME as it is now
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from hpo.live_view import panel
from hpo.study.status import StudyStatus


def live_picture(status: StudyStatus, path: Path, width: int = 96) -> None:
    """Write the live view of `status`, `width` characters wide, as an SVG that loads nothing."""
    console = Console(record=True, file=io.StringIO(), width=width, markup=False, emoji=False, force_terminal=True)
    console.print(panel(status))
    svg = console.export_svg(title="hpo run")
    # rich's picture asks a server for its font; any monospaced font of the reader's will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    path.write_text(svg, encoding="utf-8")


def main() -> None:
    from hpo.study.status import read_status
    from hpo.study.storage import open_storage

    live_picture(read_status(open_storage(), sys.argv[1]), Path(__file__).with_name("live.svg"))


if __name__ == "__main__":
    main()
