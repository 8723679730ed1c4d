"""A run that no simulation made: records of the shapes that a real one has, drawn from a seed."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np

from gauntlet_jax.nodes.record import PeerRecord, RoundRecord, to_json

PEERS = (
    ("ada", "honest"),
    ("bela", "honest"),
    ("chen", "honest"),
    ("dora", "honest"),
    ("emil", "honest"),
    ("fola", "double_data"),
    ("gwen", "copycat"),
    ("hugo", "lazy"),
    ("iris", "noise"),
    ("jack", "sign_flip"),
    ("kira", "stale"),
    ("lars", "late"),
)
EMISSION = 1_000_000
WARM_UP = 15
GATE = 0.2
STRENGTH = {"honest": 1.0, "double_data": 1.25, "lazy": 0.75, "noise": 0.02, "sign_flip": -1.0, "stale": 0.4}
AGREES = {"honest": 0.96, "double_data": 0.97, "lazy": 0.45, "noise": 0.5, "sign_flip": 0.04, "stale": 0.95}


def config(**fields):
    base = {
        "name": "synthetic",
        "seed": 0,
        "rounds": 60,
        "baseline": "adamw",
        "validator": {"sample_size": None, "proof_decay": 0.95},
        "rewards": {"payable_after": WARM_UP, "payable_proof": GATE},
        "peers": [{"name": name, "behavior": behavior} for name, behavior in PEERS],
    }
    return base | fields


def records(rounds=60, seed=0, peers=PEERS):
    rng = np.random.default_rng(seed)
    rating = {name: (25.0, 25 / 3) for name, _ in peers}
    proof = dict.fromkeys(rating, 0.0)
    standing = dict.fromkeys(rating, 1.0)
    evaluations = dict.fromkeys(rating, 0)
    made = []
    for t in range(rounds):
        refusals, scores = {}, {}
        for name, behavior in peers:
            if behavior == "late":
                refusals[name] = "late"
            elif behavior == "copycat" and rng.random() < 0.8:
                refusals[name] = "duplicate"
            elif behavior == "stale" and t % 6 == 5:
                refusals[name] = "out_of_sync"
            else:
                gain = (0.05 * math.exp(-t / 40) + 0.01) * STRENGTH.get(behavior, 1.0)
                random = gain + rng.normal(0, 0.004)
                agrees = rng.random() < AGREES.get(behavior, 0.4)
                scores[name] = (random + (1 if agrees else -1) * abs(rng.normal(0, 0.004)), random)
        order = sorted(scores, key=lambda name: -scores[name][1])
        for place, name in enumerate(order):
            mu, sigma = rating[name]
            rating[name] = (mu + 0.9 * sigma * (0.5 - place / max(1, len(order) - 1)), max(1.6, sigma * 0.97))
            proof[name] = 0.95 * proof[name] + 0.05 * (1 if scores[name][0] > scores[name][1] else -1)
            evaluations[name] += 1
        weights = {}
        for name, _ in peers:
            if name in refusals:
                standing[name] = max(0.42, standing[name] * 0.75)
            mu, sigma = rating[name]
            weights[name] = max(0.0, proof[name]) * max(0.0, mu - 3 * sigma) * standing[name]
        total = sum(weight**2 for weight in weights.values())
        top = sorted((n for n in scores if weights[n] > 0), key=lambda n: -weights[n])[:6]
        rows, paid = [], 0
        for name, behavior in peers:
            payable = evaluations[name] >= WARM_UP and proof[name] / (1 - 0.95 ** evaluations[name]) > GATE
            incentive = weights[name] ** 2 / total if total else 0.0
            payout = int(incentive * EMISSION) if payable else 0
            paid += payout
            refusal = refusals.get(name)
            mu, sigma = rating[name]
            rows.append(
                PeerRecord(
                    name=name,
                    behavior=behavior,
                    declared={"double_data": 16, "honest": 8}.get(behavior, 8),
                    uploaded_at=float(63.0 if refusal == "late" else rng.uniform(40, 58)),
                    bytes=12_345,
                    digest=hashlib.sha256(f"{name}{t}".encode()).hexdigest(),
                    sync_score=float(rng.uniform(2.0, 3.4)) if behavior == "stale" else 0.0,
                    refusal=refusal,
                    slashed=(refusal,) if refusal else (),
                    detail={
                        "late": "uploaded 3.0 s after the window closed",
                        "duplicate": "same payload as ada",
                    }.get(refusal or "", ""),
                    scores={"assigned": float(scores[name][0]), "random": float(scores[name][1])}
                    if name in scores
                    else {},
                    rank=order.index(name) if name in order else None,
                    rating_mu=float(mu),
                    rating_sigma=float(sigma),
                    loss_rating=float(mu - 3 * sigma),
                    proof_of_computation=float(proof[name]),
                    evaluations=evaluations[name],
                    standing=float(standing[name]),
                    peer_score=float(weights[name]),
                    aggregated=name in top,
                    incentive=float(incentive),
                    payable=payable,
                    payout=payout,
                )
            )
        loss = 2.4 + 3.1 * math.exp(-t / 18)
        made.append(
            RoundRecord(
                round=t,
                learning_rate=4e-3,
                heldout_loss=float(loss + rng.normal(0, 0.01)),
                baseline_loss=float(loss * 1.03 + rng.normal(0, 0.01)),
                params_digest=hashlib.sha256(str(t).encode()).hexdigest(),
                emission=EMISSION,
                reserve=EMISSION - paid,
                peers=tuple(rows),
            )
        )
    return made


def summary(made, wall_seconds=78.5):
    last, half = made[-1], made[len(made) // 2 :]
    paid = sum(p.payout for r in made for p in r.peers)
    late = sum(p.payout for r in half for p in r.peers)
    rows = []
    for i, peer in enumerate(last.peers):
        own = [r.peers[i] for r in made]
        refusals, slashes = {}, {}
        for one in own:
            if one.refusal:
                refusals[one.refusal] = refusals.get(one.refusal, 0) + 1
            for reason in one.slashed:
                slashes[reason] = slashes.get(reason, 0) + 1
        payout = sum(p.payout for p in own)
        rows.append(
            {
                "name": peer.name,
                "behavior": peer.behavior,
                "rating_mu": peer.rating_mu,
                "rating_sigma": peer.rating_sigma,
                "loss_rating": peer.loss_rating,
                "proof_of_computation": peer.proof_of_computation,
                "peer_score": peer.peer_score,
                "incentive": peer.incentive,
                "payout": payout,
                "payout_share": payout / paid if paid else 0.0,
                "payout_share_second_half": sum(p.payout for p in own[len(made) // 2 :]) / late
                if late
                else 0.0,
                "rounds_aggregated": sum(p.aggregated for p in own),
                "slashes": slashes,
                "refusals": refusals,
            }
        )
    return {
        "schema": 1,
        "config": "synthetic",
        "seed": 0,
        "rounds": len(made),
        "parameters": 215_424,
        "params_digest": last.params_digest,
        "wall_seconds": wall_seconds,
        "seconds": {
            "compile": 14.2,
            "train": 31.0,
            "encode": 6.1,
            "evaluate": 19.7,
            "aggregate": 2.2,
            "other": 5.3,
        },
        "loss": {"initial": 5.56, "final": last.heldout_loss},
        "baseline": {"name": "adamw", "learning_rate": 3e-3, "final": last.baseline_loss},
        "bytes": {"per_peer_round": 12_345, "bits_per_value": 14.6, "compression": 69.8},
        "payout_total": paid,
        "reserve": sum(r.reserve for r in made),
        "validators": [{"name": "validator", "stake": 1.0, "trust": 1.0, "dividends": 0.0}],
        "peers": rows,
    }


def write_run(folder: Path, made=None, finished=True, **fields):
    made = records() if made is None else made
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(**fields)))
    (folder / "rounds.jsonl").write_text("".join(to_json(r) + "\n" for r in made))
    if finished:
        (folder / "summary.json").write_text(json.dumps(summary(made)))
    return folder
