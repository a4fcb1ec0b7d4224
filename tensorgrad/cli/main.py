"""The commands and their options. What they do is imported only when they are called."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tensorgrad.cli.settings import (
    DEFAULTS,
    FOLD_DEFAULTS,
    OPTIONS,
    as_text,
    count,
    image_size,
    line,
    positive,
    seed,
    sizes,
)
from tensorgrad.cli.terminal import Terminal

_TRAIN_EXAMPLES = """\
examples:
  tensorgrad train
      train a small network on the 1,797 handwritten digits that come along
  tensorgrad train --data photos --image-size 32x32 --grey
      images of your own: photos/cat/*.jpg, photos/dog/*.jpg, ...
  tensorgrad train --data mnist --hidden 128 --epochs 10 --out runs/mnist
      the four IDX files of MNIST, or of a relative of it, in the folder mnist
  tensorgrad train --data vowels.csv --features f1,f2 --target vowel
      columns of a table; a target of numbers makes it a regression
  tensorgrad train --hidden 30 --activation sigmoid --optimizer sgd --lr 0.5 --momentum 0.9
      the network of the textbooks
  tensorgrad train --hidden 128,64 --dropout 0.2 --l2 1e-4 --patience 5 --schedule cosine
      a larger one, held back by dropout, a penalty and early stopping
  tensorgrad train --config runs/digits-1/config.toml --seed 1
      the settings of an earlier run, but for one
  tensorgrad train --resume runs/digits-1 --epochs 80
      go on with a run that was interrupted, or make it longer
"""

# Command -> what it does in a few words, in more, examples, exit codes beside the usual ones.
_ABOUT: dict[str, tuple[str, str, str]] = {
    "train": (
        "train a network on handwritten digits, or on images, tables or arrays of your own",
        "Trains a network of fully connected layers, and leaves in one folder its weights, a\n"
        "checkpoint to resume from, its history, a picture of its curves, and its settings.",
        _TRAIN_EXAMPLES,
    ),
    "resume": (
        "go on with a run that was interrupted or killed",
        "Goes on from the newest whole checkpoint; the end has the same bits as without the\n"
        "interruption.",
        "examples:\n  tensorgrad resume runs/digits-1\n"
        "  tensorgrad resume runs/digits-1 --epochs 100\n",
    ),
    "evaluate": (
        "figures of a trained network on its test data, or on other data",
        "Prints the loss, accuracy, precision, recall, F1 and the confusion matrix (of numbers: "
        "R2\nand errors).",
        "examples:\n  tensorgrad evaluate runs/digits-1\n"
        "  tensorgrad evaluate runs/pets-1 --data more_photos\n",
    ),
    "predict": (
        "what a trained network says of images, rows of a table, or arrays",
        "Prints a line of CSV for each example: the class and its probability, or the numbers.",
        "examples:\n  tensorgrad predict runs/pets-1 cat7.jpg dog3.jpg\n"
        "  tensorgrad predict runs/vowels-1 new.csv --out answers.csv\n",
    ),
    "cross-validate": (
        "compare numbers of hidden units by k-fold cross-validation",
        "Trains each network k times, each time on all but one part of the data, and measures it\n"
        "on the part left out. Prints a table and leaves it, and a picture, in a folder.",
        "examples:\n  tensorgrad cross-validate --hidden 2 --hidden 8 --hidden 32\n"
        "  tensorgrad cross-validate --data vowels.csv --target vowel --folds 10\n",
    ),
    "verify-resume": (
        "kill training again and again, and prove that resuming loses nothing",
        "Trains once without interruption. Then trains, kills the process (SIGKILL) at a random\n"
        "moment, some of them in the middle of writing a checkpoint, resumes, and compares every\n"
        "bit of the weights and the optimizer. Exit code 1 if one differs.",
        "examples:\n  tensorgrad verify-resume --kills 10\n",
    ),
    "demo": (
        "experiments of the lectures: vanishing gradients, XOR, over-fitting, steering",
        "Runs an experiment that needs no data, prints what it shows, and leaves its pictures\n"
        "in a folder.",
        "examples:\n  tensorgrad demo vanishing-gradients\n  tensorgrad demo xor\n"
        "  tensorgrad demo overfitting\n  tensorgrad demo steering --out runs/road\n",
    ),
    "report": (
        "one HTML page about a run, which opens without a network",
        "Writes report.html into the folder of the run: settings, curves, confusion matrix,\n"
        "weights as pictures, gradient norms where they were noted.",
        "examples:\n  tensorgrad report runs/digits-1\n",
    ),
    "info": (
        "versions, devices, and why a GPU is not used",
        "Shows versions, the machine and the devices, for bug reports and set-up.",
        "examples:\n  tensorgrad info\n  tensorgrad info --operations > operations.md\n",
    ),
    "bench": (
        "how fast training steps are on this machine",
        "Times steps of three networks, eager and compiled, each the median of many.",
        "examples:\n  tensorgrad bench\n  tensorgrad bench --device cuda\n",
    ),
    "completion": (
        "what makes the shell complete commands and options",
        "Prints a script for the shell; needs argcomplete: pip install argcomplete",
        'examples:\n  eval "$(tensorgrad completion bash)"\n',
    ),
}  # fmt: skip


DEMO_NAMES = ("vanishing-gradients", "xor", "overfitting", "steering")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from tensorgrad import __version__

    parser = _Parser(
        prog="tensorgrad",
        description="A tensor engine with automatic differentiation.",
        epilog="tensorgrad COMMAND --help says more, by example. Exit codes: 0; 1 training or a "
        "check failed; 2 wrong input; 130 Ctrl-C.",
    )
    parser.add_argument(
        "--version", action="version", version=f"tensorgrad {__version__}",
        help="show the version and leave",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made = {name: _command(commands, name) for name in _ABOUT}
    add_settings(made["train"])
    made["train"].add_argument(
        "--resume", metavar="DIR",
        help="folder of a run to go on with; only --epochs, --device and where the data is now may "
        "be given with it",
    )  # fmt: skip
    for name in ("train", "cross-validate"):
        made[name].add_argument(
            "--config", metavar="FILE",
            help="settings from a TOML file, as config.toml of a run; options given here go before",
        )  # fmt: skip
    _add_run(made["resume"])
    made["resume"].add_argument("--epochs", metavar="N", type=count, help="in total, done ones too")
    made["resume"].add_argument("--device", metavar="NAME", help="another device than before")
    for option, what in (
        ("data", "the data"), ("test", "that to test with"), ("image-root", "the images of a list"),
    ):  # fmt: skip
        made["resume"].add_argument(
            f"--{option}", metavar="PATH", help=f"where {what} is now, if it was moved"
        )
    _add_run(made["evaluate"])
    made["evaluate"].add_argument("--data", metavar="PATH", help="other data of the same kind")
    made["evaluate"].add_argument(
        "--part", choices=("train", "validation", "test"),
        help="of the run's own data (default test)",
    )  # fmt: skip
    made["evaluate"].add_argument("--json", action="store_true", help="print JSON")
    _add_run(made["predict"])
    made["predict"].add_argument("inputs", nargs="+", metavar="FILE", help="images, .csv or .npz")
    made["predict"].add_argument("--out", metavar="FILE", help="a CSV file in place of the screen")
    _add_cross_validation(made["cross-validate"])
    verify = made["verify-resume"]
    verify.add_argument("--kills", metavar="N", type=count, default=100, help="(default 100)")
    verify.add_argument("--seed", metavar="N", type=seed, default=0, help="of the moments")
    verify.add_argument("--epochs", metavar="N", type=count, default=20, help="(default 20)")
    verify.add_argument("--folder", metavar="DIR", help="where to work (default a temporary one)")
    made["demo"].add_argument("name", choices=DEMO_NAMES)
    made["demo"].add_argument("--out", metavar="DIR", help="new folder (default runs/<name>-<n>)")
    made["demo"].add_argument("--seed", metavar="N", type=seed, help="of the random numbers")
    _add_run(made["report"])
    made["report"].add_argument("--out", metavar="FILE", help="(default report.html in the folder)")
    made["info"].add_argument(
        "--operations", action="store_true", help="print the table of operations as Markdown"
    )
    made["bench"].add_argument("--device", metavar="NAME", help='"cpu", "cuda", ...')
    made["bench"].add_argument(
        "--seconds", metavar="N", type=positive, default=1.0, help="for each line (default 1)"
    )
    made["completion"].add_argument("shell", choices=("bash", "zsh", "fish"))
    for name, options in (
        ("evaluate", ("device", "image-root", "label-pattern", "image-size")),
        ("predict", ("device", "image-size")),
    ):
        for option in options:
            kind = image_size if option == "image-size" else line
            made[name].add_argument(
                f"--{option}", metavar=option.upper(), type=kind, help="as for train"
            )
    return parser


def _command(commands: Any, name: str) -> argparse.ArgumentParser:
    short, long, examples = _ABOUT[name]
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # what is not given shows, and a resumed run asks
    )
    return made


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run, as runs/digits-1")


def add_settings(
    parser: argparse.ArgumentParser,
    without: Sequence[str] = (),
    defaults: Mapping[str, Any] = DEFAULTS,
) -> None:
    """Add the options of a training run, but for those named."""
    groups: dict[str, Any] = {}
    for option in OPTIONS:
        if option.name in without:
            continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        name = f"--{option.name.replace('_', '-')}"
        text = option.help
        default = defaults[option.name]
        if option.kind is None:
            if default:
                text += " (default: on)"
            groups[option.group].add_argument(
                name, action=argparse.BooleanOptionalAction, help=text
            )
            continue
        if default is not None:
            text += f" (default {as_text(default)})"
        kinds: dict[str, Any] = {"type": option.kind, "metavar": option.metavar}
        if option.choices is not None:
            kinds = {"choices": option.choices}
        groups[option.group].add_argument(name, help=text, **kinds)


def _add_cross_validation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hidden", metavar="SIZES", type=sizes, action="append",
        help='a network to compare, as 16 or 64,32 or "none"; may be given several times '
        "(default 2, 4, 8, 16, 32, 64, or that of --config)",
    )  # fmt: skip
    parser.add_argument("--folds", metavar="K", type=count, default=5, help="(default 5)")
    add_settings(
        parser,
        without=(
            "hidden", "test", "validation_share", "patience", "metrics", "checkpoint_steps",
            "checkpoint_minutes", "keep", "gradient_norms", "tensorboard", "live",
        ),
        defaults={**DEFAULTS, **FOLD_DEFAULTS},
    )  # fmt: skip


#: Command -> the module here and the function in it that carries it out, given the options.
_COMMANDS = {
    "train": ("train", "train"),
    "resume": ("train", "resume"),
    "evaluate": ("evaluate", "evaluate"),
    "predict": ("evaluate", "predict"),
    "cross-validate": ("cross_validate", "cross_validate"),
    "verify-resume": ("verify_resume", "verify_resume"),
    "demo": ("demos", "demo"),
    "report": ("report", "report"),
    "info": ("info", "info"),
    "bench": ("bench", "bench"),
    "completion": ("completion", "completion"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0; 1 if training or a check failed; 2 for wrong input; 130 after Ctrl-C.

    argv: the words after the program's name; those of this process if None.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Terminal(sys.stdout), Terminal(sys.stderr)
    try:
        return _run(argv)
    finally:
        sys.stdout, sys.stderr = before


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what could come next
        import argcomplete

        argcomplete.autocomplete(parser)
    try:
        args = vars(parser.parse_args(argv))
    except SystemExit as leave:  # --help, or an error already printed
        return leave.code if isinstance(leave.code, int) else 2
    command = args.pop("command")
    from tensorgrad.errors import TensorgradError

    try:
        module, function = _COMMANDS[command]
        carry_out = getattr(importlib.import_module(f"tensorgrad.cli.{module}"), function)
        code: int = carry_out(**args) or 0
        sys.stdout.flush()
    except (TensorgradError, OSError, MemoryError) as error:
        text = " ".join(_said(error).split()) or type(error).__name__
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
        print(f"tensorgrad {command}: error: {text}", file=sys.stderr)
        return 1 if isinstance(error, ArithmeticError) else 2  # TrainingError is one
    except KeyboardInterrupt as interruption:
        text = " ".join(map(str, interruption.args)) or "interrupted"
        print(f"tensorgrad {command}: {text}", file=sys.stderr)
        return 130
    return code


_LONGEST = 1000  # characters of an error: names may be long, and classes many
_REMEDIES = {
    errno.ENOENT: "; check the name",
    errno.EACCES: "; change its permissions, or take another",
    errno.EISDIR: "; name a file in it",
    errno.ENOTDIR: "; a part of the path is a file",
    errno.ENAMETOOLONG: "; take a shorter one",
    errno.ENOSPC: "; make room on the disk",
}


def _said(error: Exception) -> str:
    """What an error says, without the number that the system gives it."""
    if not isinstance(error, OSError) or error.strerror is None or error.errno is None:
        return str(error)
    name = error.filename if error.filename2 is None else error.filename2
    where = "" if name is None else f"{os.fsdecode(name) if not isinstance(name, int) else name}: "
    return f"{where}{error.strerror}{_REMEDIES.get(error.errno, '')}"
