import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
import synthetic_run

from gauntlet_jax.cli import main, report, run_folder

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a browser would make of the page: tags, scripts and the embedded data."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self._inside = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def render(folder):
    return report.render(run_folder.read_run(folder))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return render(synthetic_run.write_run(tmp_path_factory.mktemp("run")))


def test_the_page_asks_nobody_for_anything(page):
    assert "default-src 'none'" in page
    outside = [
        value for _, attrs in Page(page).tags for key, value in attrs.items() if key in ("src", "href")
    ]
    assert outside == []
    addresses = set(re.findall(r"https?://[^\"'\s)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name of a namespace, not a request
    assert "@import" not in page
    assert "url(" not in page


def test_the_tables_stand_without_javascript(page):
    text = Page(page).text
    for word in (
        "ada",
        "double data",
        "late x60",
        "Held-out loss",
        "Where the time went",
        "rewards.payable_proof",
    ):
        assert word in text


def test_a_hostile_name_stays_text(tmp_path):
    peers = [(EVIL if name == "gwen" else name, behavior) for name, behavior in synthetic_run.PEERS]
    made = synthetic_run.records(rounds=4, peers=peers)
    made = [
        dataclasses.replace(
            r, peers=tuple(dataclasses.replace(p, detail=f"same payload as {EVIL}") for p in r.peers)
        )
        for r in made
    ]
    page = Page(render(synthetic_run.write_run(tmp_path, made, name=EVIL)))
    assert len(page.scripts) == 2
    assert not [
        attrs for tag, attrs in page.tags if tag == "img" or any(key.startswith("on") for key in attrs)
    ]
    data = json.loads(page.scripts[0])
    assert EVIL in [peer["name"] for peer in data["peers"]]
    assert EVIL in page.text


def test_the_data_are_the_records(page):
    data = json.loads(Page(page).scripts[0])
    made = synthetic_run.records()
    assert data["rounds"] == list(range(60))
    assert data["step"] == 1
    ada = next(peer for peer in data["peers"] if peer["name"] == "ada")
    own = [peer for record in made for peer in record.peers if peer.name == "ada"]
    assert ada["payout"] == [peer.payout for peer in own]
    assert ada["mu"] == [pytest.approx(peer.rating_mu, rel=1e-3) for peer in own]
    late = next(peer for peer in data["peers"] if peer["name"] == "lars")
    assert set(late["refusal"]) == {"late"}
    assert late["random"] == [None] * 60
    assert (ada["kind"], late["kind"]) == ("honest", "cheat")


def test_a_long_run_is_thinned_and_keeps_its_totals(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROUNDS", 25)
    run = run_folder.read_run(synthetic_run.write_run(tmp_path))
    data = report.page_data(run)
    assert data["step"] == 3
    assert len(data["rounds"]) == 20
    assert data["rounds"][-1] == 59
    for peer in data["peers"]:
        own = [p for r in run.records for p in r.peers if p.name == peer["name"]]
        assert sum(peer["payout"]) == sum(p.payout for p in own)
        assert sum(peer["aggregated"]) == sum(p.aggregated for p in own)


def test_200_rounds_of_12_peers_stay_under_3_mb(tmp_path):
    page = render(synthetic_run.write_run(tmp_path, synthetic_run.records(rounds=200)))
    assert len(page.encode()) < 3_000_000


def test_an_unfinished_run_has_a_page_that_says_so(tmp_path):
    made = [
        dataclasses.replace(r, heldout_loss=None, baseline_loss=None) for r in synthetic_run.records(rounds=1)
    ]
    text = Page(render(synthetic_run.write_run(tmp_path, made, finished=False))).text
    assert "unfinished" in text
    assert "Where the time went" not in text


def test_scores_of_a_config_are_shown(tmp_path):
    made = [
        dataclasses.replace(
            r, peers=tuple(dataclasses.replace(p, scores={**p.scores, "novelty": 0.5}) for p in r.peers)
        )
        for r in synthetic_run.records(rounds=2)
    ]
    data = report.page_data(run_folder.read_run(synthetic_run.write_run(tmp_path, made)))
    assert data["extra"] == ["novelty"]
    assert data["peers"][0]["extra"]["novelty"] == [0.5, 0.5]


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    folder = synthetic_run.write_run(tmp_path / "run", synthetic_run.records(rounds=2))
    assert main.main(["report", str(folder)]) == 0
    assert (folder / "report.html").exists()
    assert main.main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == (folder / "report.html").read_text()
    assert main.main(["report", str(folder), "--out", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
