"""Pretrain the generalist: episodes of every session, then networks of several seeds; resumable.

    python runs/pretrain_generalist.py --out DIR [--data DIR] [--split FILE] [--corpus local|open] [--seeds 2]
        [--steps 5000] [--jobs 2] [--skip-every K,R]

``local``: the pretraining sessions of Indy and Spike. ``open``: what may ship: Indy's (CC BY), the closed-loop sets
(MIT) and simulated populations. ``--skip-every K,R`` leaves out every session whose number modulo K is R, for
networks that have not seen it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import betz
from betz.core.session import Session
from betz.decode.history import History
from betz.train.episodes import EpisodeSettings, episodes_of, load_episodes, save_episodes

INDY = ("finger_vx", "finger_vy")
CARDS = {
    "local": ("not to be shared", ("Recordings of which some state no licence.",)),
    "open": (
        "CC-BY-4.0",
        (
            "Indy, sessions to 2016-10-07: O'Doherty, Cardoso, Makin, Sabes (2017), Zenodo 583331, CC BY 4.0.",
            "Closed-loop cursor sessions of two monkeys from Carnegie Mellon and Pittsburgh, MIT licence.",
            "Simulated populations of Betz.",
        ),
    ),
}
"""By corpus: licence of the weights, and where the recordings come from."""
SIMULATED = ("random_target", "center_out", "grid", "random_target", "force_2d", "center_out", "random_target", "grasp")


@dataclass(frozen=True)
class Source:
    """Sessions of one subject, oldest first.

    Args:
        subject: its name in the results.
        items: its sessions, files or ``sim:TASK:DAY``.
        behavior: patterns of what is decoded; those that a session lacks are left out.
        history: whether earlier sessions are given to later ones.
        weight: how often one of its groups is drawn.
    """

    subject: str
    items: tuple[str, ...]
    behavior: tuple[str, ...]
    history: bool = True
    weight: float = 1.0


def sources(corpus: str, data: Path, ids: Sequence[str]) -> list[Source]:
    """The subjects of a corpus; ``ids`` are the sessions that may be used."""
    indy = tuple(str(p) for p in sorted(data.glob("indy/*.npz")) if p.stem in ids)
    spike = tuple(str(p) for p in sorted(data.glob("limblab_spike_wf/*.mat")) if p.stem in ids)
    if corpus == "local":
        behavior = ("cursor_vx", "cursor_vy", "cursor_x", "cursor_y", "emg_*")
        return [Source("indy", indy, INDY, weight=2.0), Source("spike", spike, behavior)]
    made = [Source("indy", indy, INDY, weight=4.0)]
    for path in sorted(data.glob("bci_cmu_pitt/*.mat")):
        made.append(Source(path.stem, (str(path),), ("cursor_vx", "cursor_vy", "cursor_x", "cursor_y"), history=False))
    for number, task in enumerate(SIMULATED):
        items = tuple(f"sim:{task}:{number}:{day}" for day in range(2))
        made.append(Source(f"sim_{number}", items, ("*",)))
    return made


def session_of(item: str) -> Session:
    """Read or simulate a session; trial edges are crossed, as queries are longer than trials."""
    if not item.startswith("sim:"):
        return betz.read(item).without_edges()
    from betz.sim.population import Simulation, simulate

    _, task, number, day = item.split(":")
    settings = Simulation(minutes=12, bin_ms=50, task=task, channels=(48, 96, 128)[int(number) % 3])
    return simulate(settings, seed=100 + int(number), day=int(day)).session


def names_of(session: Session, patterns: Sequence[str]) -> list[str]:
    """Continuous dimensions that match and vary."""
    from fnmatch import fnmatchcase

    import numpy as np

    found = [d.name for d in session.dims if d.kind == "continuous" and any(fnmatchcase(d.name, p) for p in patterns)]
    y = session.behavior_of(found)
    return [n for n, column in zip(found, y.T, strict=True) if np.nanstd(column) > 0]


def cache(source: Source, folder: Path, settings: EpisodeSettings, seed: int) -> int:
    """Write the episodes of one subject, a file a session; what is there is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    earlier: History | None = None
    made = 0
    for item in source.items:
        session = session_of(item)
        names = names_of(session, source.behavior)
        target = folder / f"{source.subject}-{session.id}.npz"
        if not target.exists():
            episodes, filtered = episodes_of(session, names, history=earlier, settings=settings, seed=seed)
            save_episodes(target, episodes, filtered)
            made += len(episodes)
            print(f"{session.id}: {len(episodes)} episodes", flush=True)
        if source.history:
            earlier = (earlier or History(session.subject)).add(session, behavior=names)
    return made


def train_one(
    folder: Path, out: Path, steps: int, seed: int, weights: dict[str, float], left_out: Sequence[str]
) -> None:
    """Train the network of one seed on all cached episodes but those of some sessions."""
    import torch

    from betz.train.generalist import GeneralistSettings, train

    torch.set_num_threads(1)
    episodes, filtered = [], {}
    for path in sorted(folder.glob("*.npz")):
        if path.stem.split("-", 1)[1] in left_out:
            continue
        some, signals = load_episodes(path)
        episodes += some
        filtered |= {(path.stem.split("-", 1)[1], merge): x for merge, x in signals.items()}
    print(f"seed {seed}: {len(episodes)} episodes", flush=True)
    train(
        episodes,
        filtered,
        out=out / f"seed{seed}",
        settings=GeneralistSettings(steps=steps),
        weights=weights,
        seed=seed,
    )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("BETZ_DATA"))
    parser.add_argument("--split", type=Path, default=Path(__file__).parent.parent / "benchmarks" / "split.json")
    parser.add_argument("--corpus", choices=("local", "open"), default="local")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip-every", default="", help="K,R: leave out sessions whose number modulo K is R")
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("error: no recordings: give --data DIR or set BETZ_DATA")
    ids = json.loads(arguments.split.read_text())["pretrain"]
    chosen = sources(arguments.corpus, arguments.data, ids)
    cached = arguments.out / "episodes"
    settings = EpisodeSettings(episodes=arguments.episodes)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        waiting = [pool.submit(cache, source, cached, settings, 0) for source in chosen]
        for job in waiting:
            job.result()
    left_out: list[str] = []
    name = "networks"
    if arguments.skip_every:
        every, rest = (int(x) for x in arguments.skip_every.split(","))
        left_out = [Path(p).stem for s in chosen for i, p in enumerate(s.items) if i % every == rest]
        name = f"networks-without-{every}-{rest}"
    weights = {s.subject: s.weight for s in chosen}
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        seeds = [int(s) for s in arguments.seeds.split(",")]
        waiting_ = [
            pool.submit(train_one, cached, arguments.out / name, arguments.steps, seed, weights, left_out)
            for seed in seeds
        ]
        for done in waiting_:
            done.result()
    target = arguments.out if name == "networks" else arguments.out / name.replace("networks", "model")
    export(arguments.out / name, target, arguments, sum(len(s.items) for s in chosen) - len(left_out))
    print(target)


def export(networks: Path, target: Path, arguments: argparse.Namespace, sessions: int) -> None:
    """Write the networks of all seeds as one generalist; priors that are there already are kept."""
    import torch

    from betz.decode.calibrate import Betz
    from betz.decode.weights import MANIFEST, load_generalist, save_generalist
    from betz.model.checkpoint import ModelCard
    from betz.model.generalist import Generalist, stacked

    made = []
    for seed in arguments.seeds.split(","):
        state = torch.load(networks / f"seed{seed}" / "checkpoint.pt", weights_only=True)
        network = Generalist()
        network.load_state_dict(state["network"])
        made.append(network)
    earlier = load_generalist(target)[0] if (target / MANIFEST).exists() else None
    recipe = Betz(
        stacked(made),
        "betz-1" if arguments.corpus == "open" else arguments.corpus,
        earlier.priors if earlier else {},
        earlier.expectations if earlier else {},
    )
    notes = [f"{sessions} sessions, {arguments.steps} steps, seeds {arguments.seeds}", *CARDS[arguments.corpus][1]]
    save_generalist(target, recipe, card=ModelCard(licence=CARDS[arguments.corpus][0], notes=tuple(notes)))


if __name__ == "__main__":
    main()
