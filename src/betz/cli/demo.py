"""``betz demo``: the main job, end to end, on simulated sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BEHAVIOR = ("hand_vx", "hand_vy")


def command(
    out: Annotated[Path, typer.Option(help="Folder of everything the demo writes.")] = Path("demo"),
    seconds: Annotated[float, typer.Option(help="Length of the live replay.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
) -> None:
    """Simulate → store → calibrate on two minutes → evaluate → replay live at 50 Hz → report. About a minute."""
    from rich.console import Console

    from betz.data.store import Store
    from betz.decode.baselines.wiener import Wiener
    from betz.evaluate.replay import replay
    from betz.evaluate.report import report
    from betz.evaluate.run import Plan, evaluate, run, table_text
    from betz.live.clocks import MonotonicClock
    from betz.live.links.replay import ReplaySource
    from betz.live.loop import run_loop
    from betz.live.recorder import Recorder, read_recording
    from betz.sim.population import Simulation, simulate_subjects

    console = Console()

    def step(number: int, text: str) -> None:
        console.print(f"[bold]{number}. {text}[/bold]")

    step(1, "Simulate two subjects on two days (96 channels, 20 ms bins, truth known)")
    store = Store(out / "store", create=True)
    made = simulate_subjects(Simulation(minutes=6), subjects=2, days=2, seed=seed)
    for one in made:
        store.put(one.session, replace=True)
    console.print(f"   {len(store.ids)} sessions in {store.path}: {', '.join(store.ids)}")

    step(2, "Calibrate a Wiener filter on the first two minutes of one session")
    session = store.get(store.ids[0])
    decoder = Wiener().calibrate(session.first(minutes=2), behavior=BEHAVIOR)
    decoder.save(out / "decoder")
    for chosen in (f.chosen for f in decoder.filters):
        console.print("   chosen by cross-validation: " + ", ".join(f"{k} {v:g}" for k, v in chosen.items()))

    step(3, "Evaluate: replay the rest through the streaming decoder")
    evaluation = evaluate(decoder, session.after(minutes=2))
    console.print(f"   {evaluation.summary()}")

    step(4, "Learning curve: the first day of each subject, half a minute to two minutes of labels")
    plan = Plan(decoders={"wiener": Wiener()}, tasks={"hand_velocity": BEHAVIOR}, minutes=(0.5, 1, 2))
    first_days = [store.get(one.session.id) for one in made if one.truth.drift.day == 0]
    rows = run(plan, first_days, out=out / "results.jsonl")
    console.print(table_text(rows))

    step(5, f"Replay the session as a live stream at {1000 / session.bin_ms:g} Hz for {seconds:g} s")
    live = session.after(minutes=2).first(minutes=seconds / 60)
    clock = MonotonicClock()
    recorder = Recorder(out / "recording", decoder)
    result = run_loop(ReplaySource(live, clock), decoder, recorder, clock)
    console.print(result.table())
    same = read_recording(out / "recording").equals(replay(decoder, live))
    console.print(f"   live output equals the offline evaluation bin for bin: {'yes' if same else 'NO'}")

    path = report(rows, out / "report.html", evaluations=[evaluation], title="Betz demo")
    console.print(f"\nReport: [bold]{path.resolve()}[/bold]")
    if not same:
        raise typer.Exit(1)
