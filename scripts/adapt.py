"""Adapt the student to one's own captures, in one command and without any sharp image.

    python scripts/adapt.py CAPTURES --out ADAPTED
    python scripts/deblur.py --blur photos/ --spike streams/ --sdmnet_path ADAPTED/SDMNet_adapted.pth

CAPTURES holds photographs and streams of the same names, or blur_data/ and spike_data/ (a data set: its train split).
They are checked and deblurred with the student; from photograph and spikes follow the sensor's threshold and noise, the
size of its pixels, the tone. What was deblurred, made smaller, moves before a simulated camera of this kind, and there
the student is trained for --minutes. Nothing but blurry images and spikes is read.

    ADAPTED/SDMNet_adapted.pth    the weights (of an LDN: DeblurNet_adapted.pth)
    ADAPTED/index.html            before and after side by side; adapted.md, .csv, .json: the table
    ADAPTED/adapt.json            what was found, and how long a step takes

The same command goes on where it was interrupted. With --steps 0 it checks, deblurs, estimates, and trains nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.engine.command import command  # noqa: E402
from codes.engine.options import parse_config  # noqa: E402
from codes.errors import InputError  # noqa: E402
from codes.making.options import AdaptConfig  # noqa: E402


def look(cfg: AdaptConfig, pairs, reading, deblurrer) -> dict:
    """Check and deblur all captures, write the small pictures; what was found, for adapt.json."""
    from codes.inference.captures import sound
    from codes.inference.withheld import deblurred, observed
    from codes.making.estimate import SensorEstimate
    from codes.making.scenes import write_picture

    before, pictures, left_out, captures = {}, [], {}, []
    for name, capture in sound(pairs, reading, left_out):
        captures.append(observed(capture))
        folder = cfg.out / "before" / name if len(before) < cfg.shown else None
        frame, figures = deblurred(capture, deblurrer, folder)
        before |= {name: figures} if folder else {}
        pictures.append(f"pictures/{name.replace('/', '_')}.png")
        write_picture(cfg.out / "scenes" / pictures[-1], frame, capture.tone, cfg.shrink)
    if not pictures:
        raise InputError(f"{cfg.captures}: none of {len(left_out)} captures is sound (listed above)")
    sensor = SensorEstimate.of(captures).values()
    return {"sensor": sensor, "pictures": pictures, "before": before, "left_out": left_out}


def compare(cfg: AdaptConfig, pairs, before: dict, reading, deblurrer, about: dict[str, str]) -> None:
    """Deblur again what was shown before, and show both."""
    from codes.inference import open_capture
    from codes.inference.withheld import INSTANTS, deblurred
    from codes.report.adapted import beside, report
    from codes.spike import evenly

    files, after, views = {name: files for name, *files in pairs}, {}, []
    for name in before:
        capture, folders = open_capture(*files[name], reading), [cfg.out / when / name for when in ("before", "after")]
        _, after[name] = deblurred(capture, deblurrer, folders[1])
        views.append(beside(*folders, capture, evenly(capture.exposure, INSTANTS), name))
    print(report(cfg.out, before, after, views, about).markdown())


def main(argv: list[str] | None = None) -> None:
    """Check, deblur, estimate, render, train, compare."""
    cfg = parse_config(AdaptConfig, argv, __doc__)

    import torch
    from torch.nn import functional as F

    from codes.engine import checkpoint, device
    from codes.engine.budget import seconds_of_step
    from codes.engine.run import Run
    from codes.engine.schedule import learning_rate
    from codes.engine.textures import describe_network
    from codes.engine.weights import Weights, load_student, record_of
    from codes.files import recorded, write_json
    from codes.inference import Deblurrer
    from codes.inference.captures import find_pairs
    from codes.inference.opening import Reading
    from codes.making.draws import Draws
    from codes.making.estimate import SensorEstimate
    from codes.making.scenes import render, write_record
    from codes.model.registry import ALONG
    from codes.student import Sight

    cfg = device.settled(cfg, device.choose_device(cfg.device))
    init = cfg.init_path or Weights().path("sdmnet")
    student = load_student(init)
    sight = Sight.of(student)
    if sight.kind not in ("pyramid", "intervals") or not sight.gain:
        raise InputError(f"{init} sees other spikes than the pyramid with gain; such a student cannot be adapted")
    network = record_of(student)
    reading = Reading.of(cfg.spike_size, exposure=cfg.exposure, tone=cfg.tone, align=cfg.align)
    captures = find_pairs(cfg.captures)
    names = "spike_size exposure tone align scenes shrink shown seed".split()
    given = {name: str(getattr(cfg, name)) for name in names} | {"init": describe_network(student)}
    given |= {"captures": [name for name, *_ in captures]}

    def deblurrer(path) -> Deblurrer:
        return Deblurrer(network.key + ALONG, device=cfg.device, **{f"{network.flag}_path": str(path)})

    plan = recorded(record := cfg.out / "adapt.json", given, "choose another --out")
    if not plan:
        plan = given | look(cfg, captures, reading, deblurrer(init))
        write_json(record, plan)
    sensor = SensorEstimate.read(plan["sensor"])
    print(f"{len(plan['pictures'])} captures are sound, {len(plan['left_out'])} left out; {sensor}")
    if cfg.steps == 0:
        return
    write_record(cfg.out / "scenes", plan["pictures"], cfg.scenes, cfg.seed)
    render(cfg.out / "scenes")
    scenes = Draws(cfg.out / "scenes", cfg.roi_size, seed=cfg.seed, draw=sensor.draw, sight=sight)

    def loss_of(net, batch) -> torch.Tensor:
        with device.autocast(batch["blur"].device, cfg.precision):
            images = net(batch["blur"], batch["spike"]).float()  # (B, M, 3, H, W)
        return F.l1_loss(images, batch["sharps"])

    if cfg.steps is None and "seconds" not in plan:
        placed = device.place(load_student(init), device.choose_device(cfg.device), cfg.precision)
        seconds = seconds_of_step(placed, scenes, cfg.bs, loss_of, cfg.workers)
        write_json(record, plan := plan | {"seconds": seconds})
    with Run(cfg.training(cfg.steps or max(round(60 * cfg.minutes / plan["seconds"]), 1)), network.prefix) as run:
        student = run.place(student)
        optimiser = torch.optim.Adam(student.parameters(), lr=cfg.lr, fused=run.fused)
        net = run.begin(student, optimiser, scenes)
        for _epoch in run.epochs():
            for batch in run.batches():
                loss = loss_of(net, batch)
                run.backward(loss)
                run.clip(1.0)
                run.update(learning_rate("onecycle", cfg.lr, run.step_count, run.total))
                run.log(loss=loss)
            run.end_epoch(lambda: None)
    weights = cfg.out / f"{network.prefix}_adapted.pth"
    checkpoint.save(checkpoint.read(run.files.weights("last")), weights)

    about = {"Data": str(cfg.captures), "Weights": f"{init}; {weights}", "Steps": str(run.total), "Sensor": str(sensor)}
    compare(cfg, captures, plan["before"], reading, deblurrer(weights), about)
    print(f"{weights}: use it with --{network.flag}_path; {cfg.out / 'index.html'} shows it")


if __name__ == "__main__":
    command(main)
