"""Metrics, rules, dashboards and runbooks use the same names, and a running system exports all of them."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from e2e.system import System, watch_for
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from mien_client.viewer import Viewer
from mien_shared.bus.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
SCALED = ROOT / "deploy/k8s/components/autoscaling/scaledobjects.yaml"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
SERVICES = ("gateway", "generator", "signaling")

#: Metrics that Prometheus itself adds.
_PROMETHEUS_OWN = {"up", "ALERTS"}
_UNITS = ("_seconds", "_bytes", "_ratio", "_bits_per_second", "_info", "_ready", "_up")
#: Gauges that count something end with its name.
_THINGS = ("_sessions", "_rooms", "_slots", "_viewers", "_uplinks", "_tasks", "_threads", "_connections", "_workers")
_LABELS = {
    *("result", "reason", "code", "status", "method", "state", "stage", "channel", "tier"),
    *("motion", "direction", "thread", "transport", "role"),
    *("service", "version", "revision", "backend", "h264_encoder", "le"),
}
#: If one metric has more series than this on one instance, a label probably has unbounded values.
_MOST_SERIES = 60


@dataclass(frozen=True)
class Asked:
    """A query and the place where it is used."""

    where: str
    expr: str


def groups() -> list[dict[str, list[dict[str, str]]]]:
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def rules(kind: str) -> list[dict[str, str]]:
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


def queries() -> Iterator[Asked]:
    """Every query of every rule, panel and autoscaler, with Grafana's variables replaced."""
    for rule in (*rules("record"), *rules("alert")):
        yield Asked(rule.get("alert") or rule["record"], rule["expr"])
    for scaled in yaml.safe_load_all(SCALED.read_text()):
        for trigger in scaled["spec"]["triggers"]:
            yield Asked(f"scaling: {scaled['metadata']['name']}", trigger["metadata"]["query"])
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield Asked(f"{path.stem}: {panel['title']}", with_variables(target["expr"]))
        for note in dashboard["annotations"]["list"]:
            yield Asked(f"{path.stem}: {note['name']}", note["expr"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                metric = re.fullmatch(r"label_values\((.+), \w+\)", variable["definition"])
                assert metric, variable["definition"]
                yield Asked(f"{path.stem}: ${variable['name']}", metric[1])


def with_variables(expr: str) -> str:
    filled = expr.replace("$__rate_interval", "1m").replace("$instance", "generator:8082")
    assert "$" not in filled, f"a variable that this test does not know: {expr}"
    return filled


def metric_names(expr: str) -> set[str]:
    """The metrics in a query: what remains after removing strings, matchers, groupings and functions."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\(|[A-Za-z0-9_:])", bare)
    return set(names) - {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def promtool(*arguments: str | Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('sum by (le) (rate(a_bucket{x="or b"}[1m])) / ignoring (z) group_left () b:c:d', {"a_bucket", "b:c:d"}),
        ("absent(a) or vector(0)", {"a"}),
        ("a unless on (job) b > bool 1e3", {"a", "b"}),
    ],
)
def test_the_names_in_a_query_are_found(expr: str, names: set[str]) -> None:
    assert metric_names(expr) - {"e3"} == names


def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", *RULES)


def test_every_alert_fires_in_promtools_tests() -> None:
    promtool("test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))


def test_no_alert_is_without_a_test() -> None:
    tests = yaml.safe_load((PROMETHEUS / "tests/alerts.yml").read_text())["tests"]
    fired = {
        name
        for case in tests
        for check in case.get("promql_expr_test", [])
        for sample in check["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert fired == {rule["alert"] for rule in rules("alert")}


def test_dashboards_ask_what_prometheus_understands(tmp_path: Path) -> None:
    asked = [
        {"record": f"look:{index}", "expr": query.expr} for index, query in enumerate(queries()) if ":" in query.where
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": asked}]}))
    assert f"{len(asked)} rules found" in promtool("check", "rules", path)


def test_dashboards_are_what_their_script_writes(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "deploy/grafana/build.py"))["write"](tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in DASHBOARDS.iterdir()}, "run deploy/grafana/build.py"


def test_dashboards_know_no_machine() -> None:
    for path in DASHBOARDS.glob("*.json"):
        text = path.read_text()
        assert not re.search(r"localhost|127\.0\.0\.1|:808\d", text)
        dashboard = json.loads(text)
        assert dashboard["uid"] == f"mien-{path.stem}"
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
            assert max(x for x, _ in cells) < 24
            assert not cells & taken, f"{panel['title']} overlaps another panel"
            taken |= cells


def test_every_alert_has_its_runbook() -> None:
    sections = re.split(r"^## ", (ROOT / "docs/runbooks.md").read_text(), flags=re.MULTILINE)[1:]
    by_name = {section.partition("\n")[0].strip(): section for section in sections}
    alerts = rules("alert")
    for rule in alerts:
        name = rule["alert"]
        annotations: dict[str, str] = rule["annotations"]  # type: ignore[assignment]
        assert annotations["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        assert {"summary", "description"} <= annotations.keys()
        for part in ("**Means**", "**Users see**", "**Do**"):
            assert part in by_name[name], f"{name} has no {part}"
    assert [name for name in by_name if name.startswith("Mien")] == [rule["alert"] for rule in alerts], "same order"


@pytest.fixture(scope="module")
def scraped() -> dict[str, list[Metric]]:
    """The metric families that each service of a running system exports after a call with a viewer."""

    async def run() -> dict[str, list[Metric]]:
        from mien_client.launcher import Stack, StackOptions

        with EmbeddedRedis() as server:
            async with Stack(StackOptions(gateway_port=0, signaling_port=0, redis_url=server.url)) as stack:
                system = System(stack, server)
                async with system.call() as call, Viewer(call.session.whep_url, call.session.watch_token) as viewer:
                    await watch_for(viewer, 4.0)
                async with asyncio.timeout(5):
                    while await system.metric("generator", "mien_generator_sessions"):
                        await asyncio.sleep(0.05)
                async with httpx.AsyncClient(trust_env=False) as http:
                    pages = {name: (await http.get(f"{stack.service_url(name)}/metrics")).text for name in SERVICES}
        assert not [name for name, page in pages.items() if call.session.session_id in page], "no label holds a session"
        return {name: list(text_string_to_metric_families(page)) for name, page in pages.items()}

    return asyncio.run(run())


def own(families: list[Metric]) -> list[Metric]:
    return [family for family in families if family.name.startswith("mien_")]


@pytest.mark.e2e
def test_every_query_names_what_a_running_system_exports(scraped: dict[str, list[Metric]]) -> None:
    exported = {sample.name for families in scraped.values() for family in families for sample in family.samples}
    known = exported | _PROMETHEUS_OWN | {rule["record"] for rule in rules("record")}
    unknown = {asked.where: missing for asked in queries() if (missing := metric_names(asked.expr) - known)}
    assert unknown == {}
    shown = set().union(*(metric_names(asked.expr) for asked in queries()))
    families = {family.name for found in scraped.values() for family in own(found)}
    unseen = {family for family in families if not any(name.startswith(family) for name in shown)}
    assert not unseen, "no rule or dashboard uses these metrics"


@pytest.mark.e2e
def test_names_say_their_unit_and_labels_stay_few(scraped: dict[str, list[Metric]]) -> None:
    for service, families in scraped.items():
        for family in own(families):
            assert family.documentation, family.name
            if family.type == "counter":
                assert all(sample.name.endswith("_total") for sample in family.samples), family.name
            else:
                assert family.name.endswith(_UNITS + _THINGS), family.name
            labels = {label for sample in family.samples for label in sample.labels}
            assert labels <= _LABELS, f"{service}: {family.name} has {labels - _LABELS}"
            series = [sample for sample in family.samples if "le" not in sample.labels]
            assert len(series) <= _MOST_SERIES, f"{service}: {family.name} has {len(series)} series"


@pytest.mark.e2e
def test_a_session_is_started_once_and_ended_once(scraped: dict[str, list[Metric]]) -> None:
    def total(name: str) -> float:
        return sum(sample.value for family in scraped["generator"] for sample in family.samples if sample.name == name)

    assert total("mien_generator_sessions_started_total") == 1
    assert total("mien_generator_sessions_ended_total") == 1
