"""Write the dashboards of dashboards/ from what stands here: `python deploy/grafana/build.py [FOLDER]`.

A dashboard is rows of panels, a panel is a title, a unit and its queries; ids and places follow from the order. The
JSON is committed, and a test keeps it equal to this file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Json = dict[str, object]

_SCHEMA_VERSION = 41  # Grafana 12
_WIDTH = 24
_DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture. `unit` is Grafana's name of it; `limit` draws a line where an alert stands."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    note: str = ""
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    limit: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """Filled with the values of a label."""

    name: str
    label: str
    values_of: str


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


def quantile(q: float, metric: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram, over all series or by a label."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{braces(where)}[$__rate_interval])))"


def mean(metric: str, by: str = "", where: str = "") -> str:
    """What a histogram's observations come to on average."""
    group = f" by ({by})" if by else ""
    parts = (f"sum{group} (rate({metric}_{part}{braces(where)}[$__rate_interval]))" for part in ("sum", "count"))
    return " / ".join(parts)


def rate(metric: str, by: str = "", where: str = "") -> str:
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{braces(where)}[$__rate_interval]))"


def braces(where: str) -> str:
    return f"{{{where}}}" if where else ""


def quantiles(metric: str, *qs: float, where: str = "") -> tuple[Query, ...]:
    return tuple(Query(quantile(q, metric, where=where), f"p{q * 100:g}") for q in qs)


def stat(title: str, unit: str, expr: str, note: str = "", limit: float | None = None, width: int = 3) -> Panel:
    return Panel(title, unit, (Query(expr),), note, "stat", width, 4, limit=limit)


CALLS = Dashboard(
    "mien-calls",
    "Mien: calls",
    "From the speaker's packets to the viewer's picture, over all services.",
    (
        Row(
            "Now",
            (
                stat("Sessions", "short", "sum(mien_generator_sessions)"),
                stat(
                    "Places taken",
                    "percentunit",
                    "sum(mien_generator_sessions) / sum(mien_generator_capacity_sessions)",
                    "Of all places on generators; at 1 new sessions are refused.",
                    limit=0.85,
                ),
                stat("Viewers", "short", 'sum(mien_viewers{state="connected"})'),
                stat("Speakers", "short", "sum(mien_uplinks)", "Uplinks open on all gateways."),
                stat(
                    "Frames a session",
                    "fps",
                    rate("mien_generated_frames_total") + " / (sum(mien_generator_sessions) > 0)",
                ),
                stat(
                    "Motion to packet, p99",
                    "s",
                    quantile(0.99, "mien_motion_to_packet_seconds"),
                    "From the gateway's receipt of a motion packet to the encoded frame.",
                    limit=0.2,
                ),
                stat("Not ready", "short", "count(mien_ready == 0) or vector(0)", "Services on 503.", limit=1),
                stat(
                    "Alerts firing",
                    "short",
                    'count(ALERTS{alertname=~"Mien.*", alertstate="firing"}) or vector(0)',
                    limit=1,
                ),
            ),
        ),
        Row(
            "Speakers",
            (
                Panel(
                    "Uplink packets by result",
                    "pps",
                    (Query(rate("mien_uplink_packets_total", "result"), "{{result}}"),),
                    "A speaker sends 30 a second. no_owner: valid, but no generator holds the session.",
                    stacked=True,
                ),
                Panel(
                    "Uplinks open, and closed by code",
                    "short",
                    (
                        Query("sum(mien_uplinks)", "open"),
                        Query(
                            "sum by (code) (increase(mien_uplink_closed_total[$__rate_interval]))", "closed {{code}}"
                        ),
                    ),
                    "4409: replaced by another uplink of the session. 4410: the session has ended.",
                ),
                Panel(
                    "Accepted packets dropped on the way",
                    "pps",
                    (Query(rate("mien_motion_forward_dropped_total", "reason"), "{{reason}}"),),
                    "superseded: overtaken by a newer packet of the same session, as it should be under load.",
                ),
            ),
        ),
        Row(
            "Sessions",
            (
                Panel(
                    "Sessions and places",
                    "short",
                    (
                        Query("sum(mien_generator_sessions)", "sessions"),
                        Query("sum(mien_generator_capacity_sessions)", "places"),
                        Query("sum(mien_watched_sessions)", "watched"),
                    ),
                    width=6,
                ),
                Panel(
                    "Requests for a session",
                    "reqps",
                    (Query(rate("mien_session_requests_total", "result"), "{{result}}"),),
                    "full and no-generator are answered 503.",
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "Sessions started and let go by generators",
                    "ops",
                    (
                        Query(rate("mien_generator_sessions_started_total", "result"), "{{result}}"),
                        Query(rate("mien_generator_sessions_ended_total", "reason"), "ended: {{reason}}"),
                    ),
                    "claimed: taken over because no generator held it.",
                    width=6,
                ),
                Panel(
                    "Starting a session",
                    "s",
                    quantiles("mien_session_start_seconds", 0.5, 0.95),
                    "Loading the avatar and preparing it.",
                    width=6,
                ),
                Panel(
                    "Avatar uploads",
                    "ops",
                    (Query(rate("mien_avatar_uploads_total", "result"), "{{result}}"),),
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "Working on an uploaded picture",
                    "s",
                    quantiles("mien_avatar_processing_seconds", 0.5, 0.95),
                    "Empty while nobody uploads.",
                    width=6,
                ),
                Panel(
                    "Sessions by tier",
                    "short",
                    (Query("sum by (tier) (mien_tier_sessions)", "{{tier}}"),),
                    "A tier is the engine and the size of the face in pixels.",
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "Calls refused",
                    "reqps",
                    (Query(rate("mien_requests_refused_total", "reason"), "{{reason}}"),),
                    "Of those who may not, or not so often.",
                    stacked=True,
                    width=6,
                ),
            ),
        ),
        Row(
            "Latency and picture",
            (
                Panel(
                    "Motion to packet",
                    "s",
                    quantiles("mien_motion_to_packet_seconds", 0.5, 0.95, 0.99),
                    "From the gateway's receipt of a motion packet to the encoded frame.",
                    limit=0.2,
                ),
                Panel(
                    "Mean time by stage",
                    "s",
                    (Query(mean("mien_stage_seconds", "stage"), "{{stage}}"),),
                    "wait: gateway to face. face is measured once a batch, the others for each frame.",
                    stacked=True,
                ),
                Panel(
                    "Lag of the channels through Redis, p99",
                    "s",
                    (Query(quantile(0.99, "mien_channel_lag_seconds", "channel"), "{{channel}}"),),
                    "motion: since the gateway took it in. video: since the frame went to the encoder.",
                    limit=0.2,
                ),
                Panel(
                    "Frames a second",
                    "fps",
                    (Query(rate("mien_generated_frames_total", "motion"), "{{motion}}"),),
                    "default: the uplink has stalled, or has not begun, and the face only breathes.",
                    stacked=True,
                ),
                Panel(
                    "Video of one session",
                    "bps",
                    (
                        Query(
                            f"8 * {rate('mien_encoded_bytes_total')} / (sum(mien_generator_sessions) > 0)",
                            "encoded, mean",
                        ),
                        Query(quantile(0.5, "mien_bitrate_target_bits_per_second"), "target told, p50"),
                    ),
                    "Targets are told only when viewers' feedback moves them.",
                ),
                Panel(
                    "IDR frames, and who asked",
                    "ops",
                    (
                        Query(rate("mien_idr_frames_total"), "made"),
                        Query(rate("mien_idr_requests_total", "reason"), "asked: {{reason}}"),
                    ),
                    "Requests that come together are served by one IDR.",
                ),
            ),
        ),
        Row(
            "Viewers",
            (
                Panel("Viewers", "short", (Query("sum by (state) (mien_viewers)", "{{state}}"),), stacked=True),
                Panel(
                    "Join: from POST to connection",
                    "s",
                    quantiles("mien_join_seconds", 0.5, 0.95),
                    limit=2,
                ),
                Panel(
                    "First frame: from POST to the first frame sent",
                    "s",
                    quantiles("mien_first_frame_seconds", 0.5, 0.95),
                    limit=3,
                ),
                Panel(
                    "Packet loss in receiver reports",
                    "percentunit",
                    (
                        Query(mean("mien_viewer_loss_ratio"), "mean"),
                        Query(quantile(0.95, "mien_viewer_loss_ratio"), "p95"),
                    ),
                    limit=0.05,
                ),
                Panel("Round trip to viewers", "s", quantiles("mien_viewer_rtt_seconds", 0.5, 0.95), limit=0.4),
                Panel(
                    "What viewers ask for",
                    "ops",
                    (
                        Query(rate("mien_viewer_nack_packets_total"), "packets again (NACK)"),
                        Query(rate("mien_viewer_pli_total"), "keyframes (PLI, FIR)"),
                        Query(rate("mien_keyframe_requests_total", "reason"), "asked of generators: {{reason}}"),
                    ),
                ),
                Panel(
                    "Frames times viewers",
                    "fps",
                    (
                        Query(rate("mien_fanout_frames_total", "result"), "{{result}}"),
                        Query(rate("mien_fanout_retired_frames_total"), "of a generator that was replaced"),
                        Query(rate("mien_fanout_bad_frames_total"), "not Annex B"),
                    ),
                    "dropped_overflow: the viewer did not take them in time. dropped_waiting: before its first IDR.",
                    stacked=True,
                ),
                Panel(
                    "Viewers that went",
                    "ops",
                    (Query(rate("mien_viewers_gone_total", "reason"), "{{reason}}"),),
                    stacked=True,
                ),
                Panel(
                    "WHEP requests",
                    "reqps",
                    (Query(rate("mien_whep_requests_total", "method, status"), "{{method}} {{status}}"),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Services",
            (
                Panel(
                    "Ready",
                    "short",
                    (Query("sum by (job) (mien_ready)", "{{job}}"),),
                    "Instances that answer 200 on /readyz.",
                    width=6,
                ),
                Panel(
                    "Redis: round trip, p99",
                    "s",
                    (Query(quantile(0.99, "mien_redis_round_trip_seconds", "job"), "{{job}}"),),
                    width=6,
                    limit=0.05,
                ),
                Panel(
                    "Redis: reached, failures, reconnects",
                    "short",
                    (
                        Query("min(mien_redis_up)", "all reach it"),
                        Query(
                            "sum by (job) (increase(mien_redis_failures_total[$__rate_interval]))", "failures {{job}}"
                        ),
                        Query(
                            "sum by (job) (increase(mien_redis_reconnects_total[$__rate_interval]))",
                            "reconnects {{job}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Event loop lag, p99",
                    "s",
                    (Query(quantile(0.99, "mien_event_loop_lag_seconds", "job"), "{{job}}"),),
                    width=6,
                    limit=0.1,
                ),
                Panel(
                    "Event loop tasks",
                    "short",
                    (Query("sum by (job) (mien_tasks)", "{{job}}"),),
                    "A number that only grows is a leak.",
                    width=6,
                ),
                Panel(
                    "CPU",
                    "percentunit",
                    (Query(rate("process_cpu_seconds_total", "job", 'job=~"mien-.+"'), "{{job}}"),),
                    "1 is one core.",
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Memory",
                    "bytes",
                    (Query('sum by (job) (process_resident_memory_bytes{job=~"mien-.+"})', "{{job}}"),),
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Open files and sockets",
                    "short",
                    (Query('sum by (job) (process_open_fds{job=~"mien-.+"})', "{{job}}"),),
                    width=6,
                ),
                Panel(
                    "Versions",
                    "short",
                    (Query("count by (service, version) (mien_build_info)", "{{service}} {{version}}"),),
                    "Instances of each; several versions for long are a rollout that has stopped.",
                    width=6,
                    stacked=True,
                ),
            ),
        ),
    ),
)

HERE = 'instance="$instance"'

GENERATOR = Dashboard(
    "mien-generator",
    "Mien: one generator",
    "What one generator's device thread does with its time, and what comes of it.",
    (
        Row(
            "Now",
            (
                stat("Sessions", "short", f"mien_generator_sessions{{{HERE}}}"),
                stat(
                    "Places taken",
                    "percentunit",
                    f"mien_generator_sessions{{{HERE}}} / mien_generator_capacity_sessions{{{HERE}}}",
                    limit=0.85,
                ),
                stat(
                    "Frames a session",
                    "fps",
                    f"{rate('mien_generated_frames_total', where=HERE)} / (sum(mien_generator_sessions{{{HERE}}}) > 0)",
                ),
                stat(
                    "Device busy",
                    "percentunit",
                    rate("mien_busy_seconds_total", where=f'{HERE}, thread="device"'),
                    "Faces of networks, of the device thread's time; 0 where the pool makes all faces.",
                    limit=0.95,
                ),
                stat(
                    "Pool busy",
                    "percentunit",
                    rate("mien_busy_seconds_total", where=f'{HERE}, thread="pool"')
                    + f" / sum(mien_pool_threads{{{HERE}}})",
                    "Warped faces, composition and encoding, of all its threads' time.",
                    limit=0.9,
                ),
                stat(
                    "Motion to packet, p99", "s", quantile(0.99, "mien_motion_to_packet_seconds", where=HERE), limit=0.2
                ),
                stat("Ready", "short", f"mien_ready{{{HERE}}}"),
                Panel(
                    "Engine and encoder",
                    "short",
                    (Query(f"mien_generator_info{{{HERE}}}", "{{engine}}, {{encoder}}"),),
                    "Its name is what matters; the value is always 1.",
                    "stat",
                    3,
                    4,
                ),
            ),
        ),
        Row(
            "Sessions and frames",
            (
                Panel(
                    "Sessions by tier",
                    "short",
                    (
                        Query(f"mien_tier_sessions{{{HERE}}}", "{{tier}}"),
                        Query(f"mien_generator_capacity_sessions{{{HERE}}}", "places"),
                    ),
                    "A tier is the engine and the size of the face in pixels.",
                ),
                Panel(
                    "Frames a second",
                    "fps",
                    (Query(rate("mien_generated_frames_total", "motion", HERE), "{{motion}}"),),
                    "default: the uplink has stalled, or has not begun, and the face only breathes.",
                    stacked=True,
                ),
                Panel(
                    "Motion that got no frame",
                    "pps",
                    (Query(rate("mien_skipped_motion_total", "reason", HERE), "{{reason}}"),),
                    "superseded: newer motion came first; many of them mean that the device does not keep up.",
                    stacked=True,
                ),
                Panel(
                    "Steps between tiers",
                    "ops",
                    (
                        Query(rate("mien_tier_steps_total", "direction", HERE), "{{direction}}"),
                        Query(f"mien_engine_fallback_info{{{HERE}}}", "no network: {{reason}}"),
                    ),
                    "down: the device had no time for all of them, and the session got a simpler face instead of fewer "
                    "frames. Many in both directions are a load that swings.",
                ),
            ),
        ),
        Row(
            "Time",
            (
                Panel(
                    "Motion to packet",
                    "s",
                    (Query(rate("mien_motion_to_packet_seconds_bucket", "le", HERE), "{{le}}"),),
                    kind="heatmap",
                ),
                Panel(
                    "Motion to packet",
                    "s",
                    quantiles("mien_motion_to_packet_seconds", 0.5, 0.95, 0.99, where=HERE),
                    limit=0.2,
                ),
                Panel(
                    "Threads at work",
                    "short",
                    (
                        Query(rate("mien_busy_seconds_total", "thread", HERE), "{{thread}}"),
                        Query(f"mien_pool_threads{{{HERE}}}", "threads of the pool"),
                        Query(f"mien_device_load_ratio{{{HERE}}}", "device's slowness"),
                    ),
                    "With the device at 1 sessions step down; with the pool at its threads they take turns. Slowness: "
                    "how much longer a batch takes than when the device was measured, alone.",
                ),
                Panel(
                    "Stages, p50",
                    "s",
                    (Query(quantile(0.5, "mien_stage_seconds", "stage", HERE), "{{stage}}"),),
                    "face is one run of the device for a whole batch.",
                ),
                Panel(
                    "Stages, p99",
                    "s",
                    (Query(quantile(0.99, "mien_stage_seconds", "stage", HERE), "{{stage}}"),),
                ),
                Panel(
                    "Faces in one run of the device",
                    "short",
                    (
                        Query(mean("mien_batch_size_sessions", where=HERE), "mean"),
                        Query(quantile(0.95, "mien_batch_size_sessions", where=HERE), "p95"),
                    ),
                ),
            ),
        ),
        Row(
            "Video",
            (
                Panel(
                    "Bitrate of one session",
                    "bps",
                    (
                        Query(
                            f"8 * {rate('mien_encoded_bytes_total', where=HERE)}"
                            f" / (sum(mien_generator_sessions{{{HERE}}}) > 0)",
                            "mean",
                        ),
                    ),
                ),
                Panel(
                    "IDR frames, and who asked",
                    "ops",
                    (
                        Query(rate("mien_idr_frames_total", where=HERE), "made"),
                        Query(rate("mien_idr_requests_total", "reason", HERE), "asked: {{reason}}"),
                    ),
                ),
                Panel(
                    "Encoded frames that Redis did not take",
                    "fps",
                    (Query(rate("mien_lost_frames_total", where=HERE), "lost"),),
                ),
                Panel(
                    "Sessions started and let go",
                    "ops",
                    (
                        Query(rate("mien_generator_sessions_started_total", "result", HERE), "{{result}}"),
                        Query(rate("mien_generator_sessions_ended_total", "reason", HERE), "ended: {{reason}}"),
                    ),
                ),
                Panel("Starting a session", "s", quantiles("mien_session_start_seconds", 0.5, 0.95, where=HERE)),
                Panel(
                    "Age of motion when it is read",
                    "s",
                    quantiles("mien_channel_lag_seconds", 0.5, 0.99, where=f'{HERE}, channel="motion"'),
                ),
            ),
        ),
        Row(
            "Process",
            (
                Panel(
                    "CPU",
                    "percentunit",
                    (Query(f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])", "cores"),),
                    "1 is one core.",
                    width=6,
                ),
                Panel(
                    "Memory",
                    "bytes",
                    (Query(f"process_resident_memory_bytes{{{HERE}}}", "resident"),),
                    width=6,
                ),
                Panel(
                    "Event loop lag",
                    "s",
                    quantiles("mien_event_loop_lag_seconds", 0.5, 0.99, where=HERE),
                    width=6,
                    limit=0.1,
                ),
                Panel(
                    "Redis: round trip",
                    "s",
                    quantiles("mien_redis_round_trip_seconds", 0.5, 0.99, where=HERE),
                    width=6,
                    limit=0.05,
                ),
            ),
        ),
    ),
    (Variable("instance", "Generator", "mien_generator_sessions"),),
)

DASHBOARDS = {"calls": CALLS, "generator": GENERATOR}


def rendered(dashboard: Dashboard) -> Json:
    """A dashboard as Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["mien"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "Mien",
                "tags": ["mien"],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_datasource_variable(), *map(_variable, dashboard.variables)]},
        "annotations": {"list": [_alert_annotation()]},
        "panels": list(_panels(dashboard.rows)),
    }


def _panels(rows: tuple[Row, ...]) -> Iterator[Json]:
    panel_id, y = 1, 0
    for row in rows:
        yield {
            "id": panel_id,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": y},
            "panels": [],
        }
        panel_id, y, x, line = panel_id + 1, y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                y, x, line = y + line, 0, 0
            yield _panel(panel, panel_id, {"h": panel.height, "w": panel.width, "x": x, "y": y})
            panel_id, x, line = panel_id + 1, x + panel.width, max(line, panel.height)
        y += line


def _panel(panel: Panel, panel_id: int, place: Json) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    custom: Json = {}
    if panel.kind == "timeseries":
        custom = {
            "fillOpacity": 30 if panel.stacked else 0,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "off" if panel.limit is None else "dashed"},
        }
    defaults: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    return {
        "id": panel_id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.note,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults | {"custom": custom}, "overrides": []},
        "options": _options(panel),
        "targets": [_target(panel, query, chr(ord("A") + index)) for index, query in enumerate(panel.queries)],
    }


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "stat":
            named = any(query.legend for query in panel.queries)
            return {
                "colorMode": "value",
                "graphMode": "none" if named else "area",
                "reduceOptions": {"calcs": ["lastNotNull"]},
                "textMode": "name" if named else "value",
            }
        case "heatmap":
            return {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"scheme": "Spectral"}}
        case "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }


def _target(panel: Panel, query: Query, ref_id: str) -> Json:
    target: Json = {"refId": ref_id, "datasource": _DATASOURCE, "expr": query.expr, "legendFormat": query.legend}
    if panel.kind == "heatmap":
        target["format"] = "heatmap"
    return target


def _datasource_variable() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.values_of}, {variable.name})"
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": variable.name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "includeAll": False,
        "multi": False,
    }


def _alert_annotation() -> Json:
    return {
        "name": "Alerts",
        "enable": True,
        "iconColor": "red",
        "datasource": _DATASOURCE,
        "expr": 'ALERTS{alertname=~"Mien.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{job}} {{instance}}",
    }


def write(folder: Path) -> None:
    """All dashboards, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(rendered(dashboard), indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
