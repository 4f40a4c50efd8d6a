"""A part of Poste that is watched otherwise.

Run as `observed HOW …`, with the `poste` command's own arguments behind it. `unobserved` counts nothing; `SHARE@URL`
has it send that share of its traces to a collector.
"""

from __future__ import annotations

import os
import sys

from poste.runtime.fast_metrics import FastCounter, FastGauge, FastHistogram
from poste_cli.__main__ import main


def count_nothing() -> None:
    """Have the metrics of every call cost no more than a function that does nothing."""
    for kind, name in ((FastCounter, "add"), (FastGauge, "add"), (FastHistogram, "observe")):
        setattr(kind, name, lambda *_: None)


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if how == "unobserved":
        count_nothing()
    else:
        share, _, os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = how.partition("@")
        os.environ |= {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    sys.exit(main())
