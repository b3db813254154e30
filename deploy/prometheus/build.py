"""Write the rules of rules/ as a PrometheusRule for Kubernetes: `python deploy/prometheus/build.py [FILE]`.

The text is taken as it stands, comments and all; a test keeps the committed file equal to what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parent / "k8s/components/monitoring/prometheusrule.yaml"

_HEAD = """\
# Written by deploy/prometheus/build.py from deploy/prometheus/rules/: change those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: mien
spec:
  groups:
"""


def prometheus_rule() -> str:
    """One PrometheusRule with the groups of all rule files."""
    groups = []
    for path in sorted((HERE / "rules").glob("*.yml"), reverse=True):  # recording rules first: alerts build on them
        _, _, body = path.read_text().partition("groups:\n")
        groups += [f"  {line}" if line else line for line in body.splitlines()]
    return _HEAD + "\n".join(groups) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET).write_text(prometheus_rule())
