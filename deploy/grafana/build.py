"""Generate the dashboards in dashboards/ from this file: `python deploy/grafana/build.py [FOLDER]`.

A dashboard is a list of rows, a row is a list of panels, and a panel is a title, a unit and its queries. Panel ids and
positions follow from the order. The JSON is committed; a test checks that it equals this script's output.
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
    """A PromQL expression and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. `unit` is Grafana's name of the unit; `limit` draws a line at an alert's threshold."""

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
    """A dashboard variable; its choices are the values of a label of the metric `values_of`."""

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
    """PromQL for a quantile of a histogram, over all series or by a label."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{braces(where)}[$__rate_interval])))"


def mean(metric: str, by: str = "", where: str = "") -> str:
    """PromQL for the mean of a histogram's observations."""
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
    "The path from the speaker's packets to the viewer's video, over all services.",
    (
        Row(
            "Now",
            (
                stat("Sessions", "short", "sum(mien_generator_sessions)"),
                stat(
                    "Places taken",
                    "percentunit",
                    "sum(mien_generator_sessions) / sum(mien_generator_capacity_sessions)",
                    "Share of all generators' session places in use. At 100 % new sessions are refused.",
                    limit=0.85,
                ),
                stat("Viewers", "short", 'sum(mien_viewers{state="connected"})'),
                stat("Speakers", "short", "sum(mien_uplinks)", "Uplinks open on all gateways."),
                stat(
                    "Frames/s per session",
                    "fps",
                    rate("mien_generated_frames_total") + " / (sum(mien_generator_sessions) > 0)",
                ),
                stat(
                    "Motion to packet, p99",
                    "s",
                    quantile(0.99, "mien_motion_to_packet_seconds"),
                    "Time from the gateway's receipt of a motion packet to the encoded frame.",
                    limit=0.2,
                ),
                stat(
                    "Not ready",
                    "short",
                    "count(mien_ready == 0) or vector(0)",
                    "Service instances that answer 503 on /readyz.",
                    limit=1,
                ),
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
                    "A speaker sends 30 packets per second. no_owner: the packet is valid, but no generator holds the "
                    "session.",
                    stacked=True,
                ),
                Panel(
                    "Uplinks: open, and closed by code",
                    "short",
                    (
                        Query("sum(mien_uplinks)", "open"),
                        Query(
                            "sum by (code) (increase(mien_uplink_closed_total[$__rate_interval]))", "closed {{code}}"
                        ),
                    ),
                    "4401: the token expired. 4408: the client did not read. "
                    "4409: another uplink of the session replaced this one. 4410: the session has ended.",
                ),
                Panel(
                    "Accepted packets dropped before the generator",
                    "pps",
                    (Query(rate("mien_motion_forward_dropped_total", "reason"), "{{reason}}"),),
                    "superseded: a newer packet of the same session replaced it, which is normal under load. redis: "
                    "Redis did not accept it.",
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
                    "Session requests by result",
                    "reqps",
                    (Query(rate("mien_session_requests_total", "result"), "{{result}}"),),
                    "Requests with result full or no-generator are answered with 503.",
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "Sessions started and ended on generators",
                    "ops",
                    (
                        Query(rate("mien_generator_sessions_started_total", "result"), "{{result}}"),
                        Query(rate("mien_generator_sessions_ended_total", "reason"), "ended: {{reason}}"),
                    ),
                    "claimed: a generator took the session over because no other generator held it.",
                    width=6,
                ),
                Panel(
                    "Time to start a session",
                    "s",
                    quantiles("mien_session_start_seconds", 0.5, 0.95),
                    "Time to load the avatar and prepare it.",
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
                    "Time to process an uploaded picture",
                    "s",
                    quantiles("mien_avatar_processing_seconds", 0.5, 0.95),
                    "Empty while there are no uploads.",
                    width=6,
                ),
                Panel(
                    "Sessions by tier",
                    "short",
                    (Query("sum by (tier) (mien_tier_sessions)", "{{tier}}"),),
                    "A tier is a face backend and a face size in pixels.",
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "API requests refused",
                    "reqps",
                    (Query(rate("mien_requests_refused_total", "reason"), "{{reason}}"),),
                    "Requests rejected by authorisation or rate limit.",
                    stacked=True,
                    width=6,
                ),
            ),
        ),
        Row(
            "Rooms",
            (
                Panel(
                    "Participants: connected, and closed by code",
                    "short",
                    (
                        Query("sum(mien_room_connections)", "connected"),
                        Query(
                            "sum by (code) (increase(mien_room_connections_closed_total[$__rate_interval]))",
                            "closed {{code}}",
                        ),
                    ),
                    "1008: too many messages. 4403: removed. 4408: the client did not read. 4409: replaced by a newer "
                    "connection. 4410: the room has ended. 4411: the participant has left.",
                    width=6,
                ),
                Panel(
                    "Joins by result",
                    "reqps",
                    (Query(rate("mien_room_joins_total", "result"), "{{result}}"),),
                    "Requests to let a participant join. Results full and no-generator are answered with 503.",
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "Messages of participants by result",
                    "ops",
                    (Query(rate("mien_room_messages_total", "result"), "{{result}}"),),
                    "Chat, reactions, hands and mutes.",
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "Webhooks by result",
                    "ops",
                    (Query(rate("mien_webhooks_total", "result"), "{{result}}"),),
                    "retried: an attempt failed. gave_up: the last attempt failed. dropped: too many waited, or Redis "
                    "failed.",
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
                    "Time from the gateway's receipt of a motion packet to the encoded frame.",
                    limit=0.2,
                ),
                Panel(
                    "Mean time by stage",
                    "s",
                    (Query(mean("mien_stage_seconds", "stage"), "{{stage}}"),),
                    "wait: from the gateway to the face generator. face: the run of the whole batch, counted for "
                    "every frame in it.",
                    stacked=True,
                ),
                Panel(
                    "Lag of the channels through Redis, p99",
                    "s",
                    (Query(quantile(0.99, "mien_channel_lag_seconds", "channel"), "{{channel}}"),),
                    "Age of a message when it is read. motion: since the gateway received it. video: since the frame "
                    "went to the encoder.",
                    limit=0.2,
                ),
                Panel(
                    "Frames per second",
                    "fps",
                    (Query(rate("mien_generated_frames_total", "motion"), "{{motion}}"),),
                    "speaker: moved by the speaker's motion. default: the uplink has stalled or has not started, so "
                    "the face only breathes.",
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
                        Query(quantile(0.5, "mien_bitrate_target_bits_per_second"), "target, p50"),
                    ),
                    "Signaling sends a new target only when viewers' feedback changes it.",
                ),
                Panel(
                    "IDR frames, and who asked",
                    "ops",
                    (
                        Query(rate("mien_idr_frames_total"), "made"),
                        Query(rate("mien_idr_requests_total", "reason"), "asked: {{reason}}"),
                    ),
                    "One IDR answers all requests that arrive together.",
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
                    "Retransmission and keyframe requests",
                    "ops",
                    (
                        Query(rate("mien_viewer_nack_packets_total"), "packets requested again (NACK)"),
                        Query(rate("mien_viewer_packets_sent_again_total"), "packets sent again"),
                        Query(
                            rate("mien_viewer_nack_packets_ignored_total", "reason"),
                            "packets not sent again: {{reason}}",
                        ),
                        Query(rate("mien_viewer_pli_total"), "keyframes requested (PLI, FIR)"),
                        Query(rate("mien_keyframe_requests_total", "reason"), "sent to generators: {{reason}}"),
                    ),
                ),
                Panel(
                    "Frames to viewers by result",
                    "fps",
                    (
                        Query(rate("mien_fanout_frames_total", "result"), "{{result}}"),
                        Query(rate("mien_fanout_retired_frames_total"), "from a replaced generator"),
                        Query(rate("mien_fanout_bad_frames_total"), "not Annex B"),
                    ),
                    "Each frame counts once per viewer. dropped_overflow: the viewer's queue was full. "
                    "dropped_waiting: the viewer waits for an IDR, at its start or after a loss.",
                    stacked=True,
                ),
                Panel(
                    "Speakers over WHIP, and why they go",
                    "short",
                    (
                        Query("sum by (state) (mien_whip_uplinks)", "{{state}}"),
                        Query("sum by (reason) (increase(mien_whip_uplinks_gone_total[1h]))", "{{reason}}, last hour"),
                        Query(
                            "sum by (method, status) (increase(mien_whip_requests_total[1h]))", "{{method}} {{status}}"
                        ),
                    ),
                ),
                Panel(
                    "Voice packets by result",
                    "pps",
                    (
                        Query(rate("mien_voice_packets_received_total", "result"), "from speakers: {{result}}"),
                        Query(rate("mien_voice_packets_sent_total"), "to viewers"),
                        Query(rate("mien_voice_packets_dropped_total", "reason"), "dropped: {{reason}}"),
                    ),
                    "Each packet to viewers counts once per viewer. quiet: of a participant that is not among the "
                    "three loudest of its room, which is normal.",
                ),
                Panel(
                    "Watched rooms, their slots, and who is put into one",
                    "short",
                    (
                        Query("sum(mien_watched_rooms)", "rooms"),
                        Query("sum by (state) (mien_room_slots)", "slots: {{state}}"),
                        Query("sum(increase(mien_room_slot_changes_total[5m]))", "changes, last 5 min"),
                    ),
                    "A slot is a place for one participant in another's connection to the room.",
                ),
                Panel("Voice held back for the lips", "s", quantiles("mien_voice_hold_seconds", 0.5, 0.95), limit=0.4),
                Panel(
                    "Motion over WHIP, and what is refused",
                    "pps",
                    (
                        Query(rate("mien_whip_motion_packets_total", "result"), "motion: {{result}}"),
                        Query(rate("mien_whip_motion_dropped_total", "reason"), "not to the inbox: {{reason}}"),
                        Query(rate("mien_whip_refused_total", "reason"), "refused: {{reason}}"),
                        Query(rate("mien_unreadable_datagrams_total"), "unreadable datagrams"),
                    ),
                ),
                Panel(
                    "Sessions at the SFU, attempts and losses",
                    "short",
                    (
                        Query("sum by (state) (mien_sfu_sessions)", "{{state}}"),
                        Query(
                            "sum by (result) (increase(mien_sfu_attempts_total[1h]))", "attempt: {{result}}, last hour"
                        ),
                        Query("sum by (reason) (increase(mien_sfu_lost_total[1h]))", "lost: {{reason}}, last hour"),
                        Query("sum by (reason) (increase(mien_sfu_ended_total[1h]))", "ended: {{reason}}, last hour"),
                        Query("sum by (result) (increase(mien_sfu_deletes_total[1h]))", "DELETE {{result}}, last hour"),
                        Query("sum (increase(mien_sfu_pli_total[1h]))", "PLI, last hour"),
                    ),
                ),
                Panel("Round trip to the SFU", "s", quantiles("mien_sfu_rtt_seconds", 0.5, 0.95)),
                Panel("Loss on the way to the SFU", "percentunit", quantiles("mien_sfu_loss_ratio", 0.5, 0.95)),
                Panel(
                    "Connected viewers by transport, and TCP connections",
                    "short",
                    (
                        Query(
                            "sum by (transport) (increase(mien_viewers_connected_total[1h]))",
                            "{{transport}}, last hour",
                        ),
                        Query("sum by (state) (mien_media_tcp_connections)", "TCP connections: {{state}}"),
                    ),
                    "Viewers through TURN count as udp. A TCP connection is unknown until it has shown whose it is.",
                ),
                Panel(
                    "Dropped at the media port, by reason",
                    "ops",
                    (
                        Query(rate("mien_media_port_dropped_total", "reason"), "{{reason}}"),
                        Query(rate("mien_media_tcp_ended_total", "reason"), "TCP connections ended: {{reason}}"),
                    ),
                    "unknown_* and unauthenticated: strangers, or the last packets of viewers that have left. "
                    "slow_tcp: a viewer does not read its connection. send_queue_full: raise net.core.wmem_max.",
                ),
                Panel(
                    "Viewers that left, by reason",
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
                    "Redis: up, failures, reconnects",
                    "short",
                    (
                        Query("min(mien_redis_up)", "up for all instances"),
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
                    "If the number only grows, a service leaks tasks.",
                    width=6,
                ),
                Panel(
                    "CPU",
                    "percentunit",
                    (Query(rate("process_cpu_seconds_total", "job", 'job=~"mien-.+"'), "{{job}}"),),
                    "Cores in use: 1 is one core.",
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
                    "Instances of each version. If several versions run for a long time, a rollout has stopped half "
                    "way.",
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
    "How one generator's device thread and pool spend their time, and the frames they make.",
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
                    "Frames/s per session",
                    "fps",
                    f"{rate('mien_generated_frames_total', where=HERE)} / (sum(mien_generator_sessions{{{HERE}}}) > 0)",
                ),
                stat(
                    "Device busy",
                    "percentunit",
                    rate("mien_busy_seconds_total", where=f'{HERE}, thread="device"'),
                    "Share of the device thread's time spent on network faces. It is 0 if the pool makes all faces.",
                    limit=0.95,
                ),
                stat(
                    "Pool busy",
                    "percentunit",
                    rate("mien_busy_seconds_total", where=f'{HERE}, thread="pool"')
                    + f" / sum(mien_pool_threads{{{HERE}}})",
                    "Share of all pool threads' time spent on warped faces, composition and encoding.",
                    limit=0.9,
                ),
                stat(
                    "Motion to packet, p99", "s", quantile(0.99, "mien_motion_to_packet_seconds", where=HERE), limit=0.2
                ),
                stat("Ready", "short", f"mien_ready{{{HERE}}}"),
                Panel(
                    "Engine and encoder",
                    "short",
                    (Query(f"mien_generator_info{{{HERE}}}", "{{backend}}, {{h264_encoder}}"),),
                    "Read the names; the value is always 1.",
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
                    "A tier is a face backend and a face size in pixels.",
                ),
                Panel(
                    "Frames per second",
                    "fps",
                    (Query(rate("mien_generated_frames_total", "motion", HERE), "{{motion}}"),),
                    "speaker: moved by the speaker's motion. default: the uplink has stalled or has not started, so "
                    "the face only breathes.",
                    stacked=True,
                ),
                Panel(
                    "Motion packets without a frame",
                    "pps",
                    (Query(rate("mien_skipped_motion_total", "reason", HERE), "{{reason}}"),),
                    "superseded: newer motion arrived before a frame was made. A high rate means that the device "
                    "cannot keep up.",
                    stacked=True,
                ),
                Panel(
                    "Steps between tiers",
                    "ops",
                    (
                        Query(rate("mien_tier_steps_total", "direction", HERE), "{{direction}}"),
                        Query(f"mien_backend_fallback_info{{{HERE}}}", "network not used: {{reason}}"),
                    ),
                    "down: the device had no time for all sessions, so a session got a simpler face instead of fewer "
                    "frames. Many steps in both directions mean that the load rises and falls.",
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
                        Query(f"mien_pool_threads{{{HERE}}}", "pool threads"),
                        Query(f"mien_device_load_ratio{{{HERE}}}", "device load factor"),
                    ),
                    "If device reaches 1, sessions step down. If pool reaches the number of pool threads, sessions "
                    "wait for each other. Device load factor: a batch's time divided by the time measured at "
                    "start-up, when the device had no other work.",
                ),
                Panel(
                    "Stages, p50",
                    "s",
                    (Query(quantile(0.5, "mien_stage_seconds", "stage", HERE), "{{stage}}"),),
                    "face: one run of the device for a whole batch.",
                ),
                Panel(
                    "Stages, p99",
                    "s",
                    (Query(quantile(0.99, "mien_stage_seconds", "stage", HERE), "{{stage}}"),),
                ),
                Panel(
                    "Faces per device run",
                    "short",
                    (
                        Query(mean("mien_batch_size_sessions", where=HERE), "mean"),
                        Query(quantile(0.95, "mien_batch_size_sessions", where=HERE), "p95"),
                        Query(rate("mien_device_batches_failed_total", where=HERE), "failed runs a second"),
                    ),
                ),
                Panel(
                    "Worker processes",
                    "short",
                    (
                        Query(f"mien_generator_workers{{{HERE}}}", "workers"),
                        Query(rate("mien_generator_process_deaths_total", "role", HERE), "deaths a second: {{role}}"),
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
                    "Encoded frames that Redis did not accept",
                    "fps",
                    (Query(rate("mien_lost_frames_total", where=HERE), "lost"),),
                ),
                Panel(
                    "Sessions started and ended",
                    "ops",
                    (
                        Query(rate("mien_generator_sessions_started_total", "result", HERE), "{{result}}"),
                        Query(rate("mien_generator_sessions_ended_total", "reason", HERE), "ended: {{reason}}"),
                    ),
                ),
                Panel("Time to start a session", "s", quantiles("mien_session_start_seconds", 0.5, 0.95, where=HERE)),
                Panel(
                    "Age of motion when the generator reads it",
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
                    "Cores in use: 1 is one core.",
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
    """The JSON of a dashboard as Grafana reads it."""
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
    """Write every dashboard to its own file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(rendered(dashboard), indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
