"""``tensorgrad train`` and ``resume``: data, a network and a Trainer, put together."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from argparse import ArgumentTypeError
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad import backend, optim
from tensorgrad.cli.amounts import settle_amounts
from tensorgrad.cli.build import (
    build_loss,
    build_optimizer,
    build_penalty,
    build_schedule,
    metrics_of,
)
from tensorgrad.cli.data import PLACES, Data, Problem, expect, grey_of, located
from tensorgrad.cli.folder import CHECKPOINT, MODEL, locked, new_results, write_json
from tensorgrad.cli.networks import build_model, described, name_kind, settle_network
from tensorgrad.cli.settings import BY_NAME, DEFAULTS, line, read_toml, write_toml
from tensorgrad.cli.terminal import counted
from tensorgrad.cli.text import Shifted, figures, load, prefer, windows_of
from tensorgrad.data import DataLoader, write_atomically
from tensorgrad.data.datasets import Dataset
from tensorgrad.data.spreadsheets import TABLES
from tensorgrad.errors import TensorgradError
from tensorgrad.ops.random import default_generator
from tensorgrad.training import (
    Callback,
    Checkpointing,
    ConfusionMatrix,
    Curves,
    EarlyStopping,
    GradientNorms,
    History,
    LivePlot,
    LoadedCheckpoint,
    NanStop,
    Progress,
    TensorBoard,
    Trainer,
    TrainingError,
    load_newest,
    save_checkpoint,
)
from tensorgrad.training.checkpoint import kept, versions
from tensorgrad.training.metrics import EpochMetric

Settings = dict[str, Any]
_TABLES, _LISTS = TABLES, (".txt", ".list")
#: Option -> the endings of --data for which it does something, and what they are.
_ONLY_FOR = {
    "target": (_TABLES, f"tables ({', '.join(TABLES)})"),
    "features": (_TABLES, f"tables ({', '.join(TABLES)})"),
    "task": (_TABLES, f"tables ({', '.join(TABLES)})"),
    "missing": (_TABLES, f"tables ({', '.join(TABLES)})"),
    "image_root": (_LISTS, "lists of images (.txt, .list)"),
    "label_pattern": (_LISTS, "lists of images (.txt, .list)"),
    "image_size": (("", *_LISTS), "image files"),
    "grey": (("", *_LISTS), "image files"),
}
_LIVE = "live.html"
_ON_RESUMING = ("epochs", "device", *PLACES)  # what may be another in the rest of a run


def train(**given: Any) -> None:
    """Train as the options ``given`` on the command line say, and print what came out.

    Raises TensorgradError or OSError for wrong input, TrainingError if the loss is not finite,
    KeyboardInterrupt after Ctrl-C.
    """
    resumed = given.pop("resume", None)
    config = given.pop("config", None)
    live_port = given.pop("live_port", None)
    if live_port is not None:
        given["live"] = True
    if resumed is not None:
        if live_port is not None:
            raise TensorgradError("--live-port cannot be given with --resume; open live.html")
        if config is not None:
            raise TensorgradError("--config cannot be given with --resume: the run has its own")
        resume(resumed, **given)
        return
    chosen = {**({} if config is None else read_toml(config)), **given}
    settings = {**DEFAULTS, **chosen}
    prefer(settings, chosen)
    name_kind(settings, chosen)
    check(settings, given)
    settings["device"] = device = backend.normalize(settings["device"])
    data = load(settings, device)
    settle_network(settings, data.problem, len(data.train), chosen)
    settle(settings, data, given)
    metrics_of(data.problem, settings)  # refused before a folder is made
    for note in data.notes:
        print(note, file=sys.stderr)
    with new_results(settings["out"], data.problem.name, CHECKPOINT) as folder:
        settings["out"] = str(folder)
        with _shown_live(folder / _LIVE, live_port):
            _train(folder, settings, data, None)


@contextlib.contextmanager
def _shown_live(path: Path, port: int | None) -> Iterator[None]:
    """Show the live page at a port of this machine meanwhile, if one is given."""
    if port is None:
        yield
        return
    from tensorgrad.playground.live import served

    with served(path, port) as address:
        print(f"training is shown at {address}", flush=True)
        yield


def resume(run: str | Path, **given: Any) -> None:
    """Go on with the run in the folder ``run``; raises as ``train``."""
    extra = sorted(set(given) - set(_ON_RESUMING))
    if extra:
        raise TensorgradError(
            f"a resumed run takes the settings of the saved one, so {BY_NAME[extra[0]].flag} "
            "cannot be given; only --epochs, --device, and where the data is now (--data, --test, "
            "--image-root) can"
        )
    folder = Path(run)
    if folder.name == CHECKPOINT:
        folder = folder.parent
    if not kept(folder / CHECKPOINT):
        raise TensorgradError(f"{folder} holds no {CHECKPOINT}; give the folder of an earlier run")
    with locked(folder):
        with warnings.catch_warnings(record=True) as damaged:
            warnings.simplefilter("always")
            checkpoint = load_newest(folder / CHECKPOINT)
        for warning in damaged:
            print(warning.message, file=sys.stderr)
        settings = _going_on(folder, checkpoint, given)
        config = checkpoint.config
        if "digest" not in config:
            print(
                f"{folder} was saved before runs kept a digest of their data: whether it is still "
                "the same was not checked",
                file=sys.stderr,
            )
        data = expect(
            load(settings, settings["device"]),
            Problem(**config["problem"]),
            config,
            folder,
            settings["data"],
        )
        with warnings.catch_warnings():
            warnings.showwarning = _say  # what differs from then, each in one line
            _train(folder, settings, data, checkpoint)


def _going_on(folder: Path, checkpoint: LoadedCheckpoint, given: Mapping[str, Any]) -> Settings:
    """The settings of a saved run, with what is ``given`` for its rest; raises as ``resume``."""
    config = checkpoint.config
    if not set(DEFAULTS) <= set(config):
        raise TensorgradError(
            f"{folder / CHECKPOINT} was not written by this version of tensorgrad train; load "
            "it with training.load_checkpoint"
        )
    saved = {name: config[name] for name in DEFAULTS}
    saved["grey"] = grey_of(saved, config["problem"]["shape"])
    for name in PLACES:
        if name in given and saved[name] is None:
            raise TensorgradError(
                f"{BY_NAME[name].flag} cannot be given: {folder} was trained without it"
            )
    settings = {**saved, **located(config, folder), **given, "out": str(folder)}
    if settings["epochs"] < checkpoint.state["epoch"]:
        done = checkpoint.state["epoch"]
        raise TensorgradError(
            f"{counted(done, 'epoch')} of {folder} {'is' if done == 1 else 'are'} done already; "
            f"--epochs is the number in total, so give a larger one than {settings['epochs']}"
        )
    settings["device"] = backend.normalize(settings["device"])
    for name in PLACES:
        place = settings[name]
        if place is None:
            continue
        try:
            line(place)
        except ArgumentTypeError as error:  # settings go into a file again
            raise TensorgradError(f"{BY_NAME[name].flag} {error}") from error
        if not os.path.exists(place):
            raise TensorgradError(
                f"{place}: there is no such file or folder, nor beside {folder}; say where it "
                f"is now with {BY_NAME[name].flag}"
            )
    return settings


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    print(message, file=sys.stderr)


def check(settings: Settings, given: Collection[str]) -> None:
    """Refuse options that would do nothing; ``given`` are those of the command line."""
    if settings["momentum"] is not None and settings["optimizer"] not in ("sgd", "rmsprop"):
        raise TensorgradError(
            f"--momentum is an option of sgd and rmsprop; {settings['optimizer']} does not take it"
        )
    if settings["model"] == "mlp" and not settings["hidden"]:
        for name in ("activation", "dropout"):
            value = settings[name]
            if value and (name in given or value != DEFAULTS[name]):
                raise TensorgradError(
                    f"--{name} is for hidden layers, and with --hidden none there are none"
                )
        settings.update(activation=None, dropout=0.0)
    check_kind(settings, settings["data"], given)


def check_kind(settings: Mapping[str, Any], path: str | None, given: Collection[str] = ()) -> None:
    """Refuse options that are for another kind of data than that at ``path``: those ``given`` on
    the command line, and those of a file that are not as they are by default."""
    ending = "" if path is None else Path(path).suffix
    for name, (endings, what) in _ONLY_FOR.items():
        # A folder has no ending, or any: whether it holds images shows when it is read.
        folder = path is not None and "" in endings and Path(path).is_dir()
        wanted = name in given or settings.get(name) not in (None, False, DEFAULTS[name])
        if wanted and (path is None or (ending not in endings and not folder)):
            raise TensorgradError(
                f"{BY_NAME[name].flag} is for {what}; got --data {path or '(the digits)'}"
            )


def settle(settings: Settings, data: Data, given: Collection[str]) -> None:
    """Set what the data decides, and refuse options that would do nothing with it.

    given: the options of the command line.
    """
    if data.problem.is_text:
        if settings["loss"] != "cross-entropy":
            raise TensorgradError(f"--loss {settings['loss']} is not for text")
    elif data.problem.classes is None:
        if "loss" in given and settings["loss"] == "cross-entropy":
            raise TensorgradError(
                "--loss cross-entropy is for classes; a target of numbers takes squared-error"
            )
        settings["loss"] = "squared-error"
    settle_amounts(settings, len(data.train), data.problem.kind)
    batch = len(data.train)
    if settings["batch_size"] != "full":
        batch = min(batch, settings["batch_size"])
    if settings["accumulate"] > batch:
        raise TensorgradError(
            f"--accumulate {settings['accumulate']} is for batches of as many examples at least; "
            f"there are {batch} in one"
        )


def new_trainer(
    data: Data, settings: Settings, callbacks: Sequence[Callback], batches: int
) -> Trainer:
    """A network and all that trains it, as the settings say; from the seed on.

    batches: of an epoch, which the schedule of the learning rate needs to know.
    """
    default_generator.seed(settings["seed"])
    model = build_model(data.problem, settings)
    model.to(settings["device"])
    optimizer = build_optimizer(model, settings)
    scheduler, schedule_every = build_schedule(optimizer, settings, batches)
    average = None
    if settings["average"]:
        average = optim.ExponentialMovingAverage(model, settings["average"])
    return Trainer(
        model,
        optimizer,
        build_loss(data.problem, settings),
        prepare=None if data.problem.is_text else data.problem.prepare(),
        penalty=build_penalty(model, settings),
        metrics=metrics_of(data.problem, settings),
        scheduler=scheduler,
        schedule_every=schedule_every,
        accumulate=settings["accumulate"],
        clip_norm=settings["clip_norm"],
        precision=settings["precision"],
        average=average,
        callbacks=callbacks,
        compile=settings["compile"],
    )


def loader_of(part: Dataset, settings: Settings, training: bool = False) -> DataLoader:
    """The batches of a part of the data."""
    # What layers of convolutions leave of 1,000 images is beyond caches: a quarter of the speed.
    size = settings["batch_size"] if training else 1000 if settings["model"] == "mlp" else 100
    how: dict[str, Any] = {"seed": settings["seed"], "device": settings["device"]}
    windows = windows_of(part)
    if not training:
        return DataLoader(
            part, size if windows is None else max(1, 32768 // windows.context), **how
        )
    # A last batch that is smaller is a program of its own, which takes longer to compile than it
    # teaches, where there are many others.
    if windows is None:
        whole = settings["model"] != "mlp" and size != "full" and len(part) >= 20 * size
        return DataLoader(part, size, shuffle=True, drop_last=whole, **how)
    order = Shifted(windows)
    return DataLoader(windows, size, sampler=order, drop_last=len(order) >= size, **how)


def _announced(data: Data, trainer: Trainer, settings: Settings) -> str:
    """What is trained on what."""
    counts = [len(part) for part in (data.train, data.validation, data.test)]
    what = "examples"
    if data.problem.is_text:
        what, counts = settings["tokens"], [n * settings["context"] for n in counts]
    return (
        f"{data.problem.name}: {counts[0]:,} training, {counts[1]:,} validation and {counts[2]:,} "
        f"test {what}; network {described(trainer.model, data.problem, settings)} on "
        f"{settings['device']}"
    )


def _train(folder: Path, settings: Settings, data: Data, resumed: LoadedCheckpoint | None) -> None:
    problem = data.problem
    config = {
        **settings, "problem": problem._asdict(), "digest": data.digest, "base": os.getcwd(),
        "target": data.target,
    }  # fmt: skip
    stopping = EarlyStopping(settings["patience"])
    checkpoints = Checkpointing(
        folder / CHECKPOINT,
        config=config,
        steps=settings["checkpoint_steps"],
        minutes=settings["checkpoint_minutes"],
        apart=1.0,  # short epochs would be nothing but checkpoints
        keep=settings["keep"],
    )
    callbacks: list[Callback] = [
        NanStop(),
        Progress(),
        History(folder / "history.csv"),
        Curves(folder / "curves.svg"),
        stopping,
    ]
    if settings["gradient_norms"]:
        callbacks.append(GradientNorms(path=folder / "gradients.csv"))
    if settings["tensorboard"]:
        callbacks.append(TensorBoard(folder / "tensorboard"))
    if settings["live"]:
        callbacks.append(LivePlot(folder / _LIVE))
    train_loader = loader_of(data.train, settings, training=True)
    warned = _Warnings()
    trainer = new_trainer(data, settings, [*callbacks, warned, checkpoints], len(train_loader))
    # The loss of numbers is not chosen: these settings may be taken for classes too.
    fixed = problem.classes is None and not problem.is_text
    chosen = {**settings, "loss": None} if fixed else settings
    write_atomically(folder / "config.toml", write_toml(chosen, versions()).encode())
    print(_announced(data, trainer, settings), flush=True)
    if resumed is not None:
        trainer.load_state_dict(resumed.state)
        print(
            f"goes on after epoch {trainer.epoch} of {settings['epochs']}, {trainer.steps:,} steps"
        )
    try:
        if resumed is None:
            trainer.attach(train_loader)
            checkpoints.save(trainer)  # from here on the run can be resumed, whatever happens
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("default", RuntimeWarning)
            warnings.showwarning = warned.hold
            trainer.fit(train_loader, loader_of(data.validation, settings), settings["epochs"])
            if settings["refit"]:
                _refit(data, settings, trainer, stopping.best_epoch)
    except KeyboardInterrupt:
        if not (folder / CHECKPOINT).exists():
            raise
        raise KeyboardInterrupt(f"interrupted; go on with: tensorgrad resume {folder}") from None
    _finish(folder, settings, config, data, trainer, stopping)


def _refit(data: Data, settings: Settings, trainer: Trainer, epochs: int) -> None:
    """Give the trainer's model weights that were trained on the validation part too.

    They follow from the seed, and soon: a run that is interrupted here does all of it again.
    """
    together = np.concatenate([data.train.indices, data.validation.indices])
    print(
        f"once more for {counted(epochs, 'epoch')}, with the "
        f"{counted(len(data.validation), 'validation example')}",
        file=sys.stderr,
        flush=True,
    )
    loader = loader_of(type(data.train)(data.whole, together), settings, training=True)
    other = new_trainer(data, settings, [NanStop()], len(loader))
    other.fit(loader, None, epochs)
    trainer.model.load_state_dict(other.model.state_dict())


class _Warnings(Callback):
    """Says in a line each what is warned of; of numbers after the epoch, as there may be many.

    Where training ends with a loss that is not finite, the error says more than what came before.
    """

    def __init__(self) -> None:
        self._held: dict[str, None] = {}

    def hold(self, message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        """Take the place of ``warnings.showwarning``."""
        if issubclass(category, RuntimeWarning):
            self._held[str(message)] = None
        else:
            _say(message)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Say it."""
        for text in self._held:
            print(text, file=sys.stderr)
        self._held.clear()

    def on_abort(self, trainer: Trainer, error: BaseException) -> None:
        """Say it, unless the error does."""
        if not isinstance(error, TrainingError):
            self.on_epoch_end(trainer, {})


def _finish(
    folder: Path,
    settings: Settings,
    config: Mapping[str, Any],
    data: Data,
    trainer: Trainer,
    stopping: EarlyStopping,
) -> None:
    """Test, and write what remains to be written."""
    classes = data.problem.classes
    if classes is not None:
        trainer.metrics["confusion"] = ConfusionMatrix()
    found = trainer.evaluated(loader_of(data.test, settings))
    values = found.compute()
    if data.problem.is_text:
        values.update(figures(data.problem, values["loss"], data.test))
    result: dict[str, Any] = {f"test_{k}": v for k, v in values.items() if k != "confusion"}
    if classes is not None:
        matrix = _confusion(found.metric("confusion"))
        result["confusion"] = matrix
    result.update(epochs=trainer.epoch, best_epoch=stopping.best_epoch, steps=trainer.steps)
    save_checkpoint(folder / MODEL, trainer.model.state_dict(), config)
    if data.problem.columns:
        write_json(folder / "preparation.json", data.problem.preparation())
    write_json(folder / "result.json", result)
    shown = ", ".join(
        _shown(name, values[name], len(data.test)) for name in values
        if name not in ("loss", "confusion")
    )  # fmt: skip
    weights = f"weights of epoch {stopping.best_epoch} of {trainer.epoch}"
    if settings["refit"]:
        weights = (
            f"weights of {counted(stopping.best_epoch, 'epoch')} on training and validation part"
        )
    print(
        f"{weights}, where the validation loss was lowest\n"
        f"test {shown or 'loss ' + format(values['loss'], '.4f')}\nwritten to {folder}: "
        f"{MODEL}, {CHECKPOINT}, history.csv, curves.svg, config.toml, result.json"
    )


def _confusion(metric: EpochMetric) -> list[list[int]]:
    assert isinstance(metric, ConfusionMatrix)
    found: list[list[int]] = metric.matrix().tolist()
    return found


def _shown(name: str, value: float, examples: int) -> str:
    """A figure as it is printed."""
    if name == "accuracy":
        return f"accuracy {value * 100:.2f} % ({round(value * examples):,} of {examples:,})"
    if name in ("mae", "mse"):
        return f"{name} {value:.4g}"
    return f"{name} {value:.4f}"
