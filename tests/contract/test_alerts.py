"""Alerts ask for what services show, and each leads to an entry of the runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import frond.aggregator.metrics
import frond.bus.metrics
import frond.inference.metrics
import frond.ingest.metrics
import frond.notifier.metrics
import frond.runtime
import frond.tiler.metrics  # noqa: F401
from frond.aggregator import reconcile
from frond.contracts import topics

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


def names() -> set[str]:
    """What a scrape of all services can hold."""
    shown = set()
    for metric in REGISTRY.collect():
        shown |= {metric.name, *(s.name for s in metric.samples)}
        if metric.type == "counter":
            shown.add(f"{metric.name}_total")
    return shown


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r["alert"])
def test_metrics_are_there(rule: dict[str, Any]) -> None:
    """Each service's scrape has them, or Prometheus makes them; of the job that it scrapes."""
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    jobs = {scraped["job_name"] for scraped in config["scrape_configs"]}
    asked = set(re.findall(r"\b(?:frond|process)_[a-z_]+", rule["expr"]))
    assert asked - names() == set()
    assert asked or rule["expr"] == 'up{job="frond"} == 0'
    assert set(re.findall(r'job="([^"]*)"', rule["expr"])) <= jobs


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r["alert"])
def test_a_chosen_series_is_there_before_its_first_event(rule: dict[str, Any]) -> None:
    """A counter that begins at 1 has no increase."""
    samples = [s for metric in REGISTRY.collect() for s in metric.samples]
    for name, label, value in re.findall(r'(frond_\w+)\{(\w+)="([^"]+)"\}', rule["expr"]):
        assert any(s.name == name and s.labels.get(label) == value for s in samples), name


def test_a_crash_loop_is_no_silence() -> None:
    """A service that lives longer than a scrape and then ends, again and again: restarts themselves are
    told, whichever service it is, and a lag is although gauges go and counters begin anew with each."""
    asked = {rule["alert"]: rule["expr"] for rule in RULES}
    assert asked["FrondRestarts"].startswith('changes(process_start_time_seconds{job="frond"}[')
    assert re.search(r"max_over_time\(frond_consumer_lag\[\d+m\]\)", asked["FrondLag"])
    # a rate that is not there is no event handled, too
    assert "unless sum by (topic) (rate(frond_events_handled_total" in asked["FrondLag"]


def test_what_waits_for_a_busy_inference_pages_nobody() -> None:
    """Of all topics the tiler's own alone is left out, and only while the tiler says so."""
    (asked,) = (rule["expr"] for rule in RULES if rule["alert"] == "FrondLag")
    assert re.search(
        r"unless on \(topic\) label_replace\(\s*max\(max_over_time\(frond_tiler_holding\[15m\]\)\) == 1, "
        rf'"topic", "{re.escape(topics.UPLOADED.name)}", "", ""\)',
        asked,
    )


def test_what_begins_anew_each_second_is_not_ready() -> None:
    """The read model connects, is ready, and meets its full disk again: a scrape in between sees it
    ready."""
    (asked,) = (rule["expr"] for rule in RULES if rule["alert"] == "FrondNotReady")
    assert asked.startswith("min_over_time(frond_ready[")


def test_all_that_the_reconciler_repeats_is_there_before() -> None:
    """Whatever it may count under, as its source has it: `FrondJobsStandStill` sees the first."""
    source = Path(reconcile.__file__).read_text()
    counted = set(re.findall(r"""\b(?:redriven|_send)\(\s*["']([^"']+)""", source))
    assert len(counted) >= 7
    seeded = {
        s.labels["what"] for m in REGISTRY.collect() for s in m.samples
        if s.name == "frond_redriven_total"
    }  # fmt: skip
    assert counted == seeded
    # nothing is counted but by these two, whose word the type checker knows
    assert "REDRIVEN" not in source


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r["alert"])
def test_the_runbook_has_it(rule: dict[str, Any]) -> None:
    """Its row begins with what the annotation says, or has it in its first cell."""
    rows = (ROOT / "docs/runbook.md").read_text().splitlines()
    first = [row.split(" | ")[0] for row in rows if row.startswith("| ")]
    assert any(rule["annotations"]["runbook"] in cell for cell in first)


def test_prometheus_loads_them() -> None:
    """Compose mounts the file where prometheus.yml names it."""
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    mounted = compose["services"]["prometheus"]["volumes"]
    assert "./deploy/alerts.yml:/etc/prometheus/alerts.yml:ro" in mounted
